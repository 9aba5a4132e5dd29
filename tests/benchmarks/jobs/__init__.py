"""The figures of jobs. Each module with `figures(folder, quick) -> list[Figure]` is a section."""
