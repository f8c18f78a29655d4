"""Render what clients read: pure functions of the releases."""
