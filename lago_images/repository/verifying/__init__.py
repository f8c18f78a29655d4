"""A published repository is checked as its clients see it."""
