"""From arguments to calls, and from errors to a message and an exit code."""

from lago_images.cli.main import main

__all__ = ["main"]
