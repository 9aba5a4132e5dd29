"""The agent as a service of the system: installed, watched, looked at, removed."""
