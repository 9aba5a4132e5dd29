"""The figures of the optimizer. Each module with `figures(folder, quick) -> list[Figure]` is a section."""
