"""Check a published repository as its clients see it."""
