"""Servers of the same model that others would write. They run in an environment of their own: see `environment`."""
