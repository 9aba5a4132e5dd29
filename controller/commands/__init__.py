"""The commands of `lepta`, one file per group. What is slow to import is imported inside the functions."""
