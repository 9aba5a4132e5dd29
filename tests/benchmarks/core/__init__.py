"""The figures of the main job. Each module is a section: `figures(folder, quick) -> list[Figure]`."""
