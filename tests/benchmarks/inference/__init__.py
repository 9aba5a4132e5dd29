"""The inference plane beside other servers, and in trouble. Each module with `figures(folder, quick)` is a section."""
