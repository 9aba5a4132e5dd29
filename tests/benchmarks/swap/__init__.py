"""The figures of the hot swap. Each module with `figures(folder, quick) -> list[Figure]` is a section."""
