"""The JSON records of a repository, and how all of them are read."""
