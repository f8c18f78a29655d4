"""The command line: arguments become calls, errors a message and an exit code."""

from lago_images.cli.main import main

__all__ = ["main"]
