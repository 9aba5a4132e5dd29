"""The figures of devices that join. Each module is a section: `figures(folder, quick) -> list[Figure]`."""
