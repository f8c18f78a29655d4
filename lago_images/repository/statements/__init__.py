"""State where an image comes from, for anybody to check offline: ``docs/verifying-an-image.md``."""
