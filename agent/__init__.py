"""The edge runtime. Imports only what a Raspberry Pi can carry."""

VERSION = "0.1.0"
"""The distribution's version; a constant because reading it from the installed metadata costs every start 15 ms."""
