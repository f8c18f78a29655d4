"""What is stated of an image, for anybody to check offline: see ``docs/verifying-an-image.md``."""
