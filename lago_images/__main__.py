"""``python -m lago_images`` is the same as ``lago-images``."""

from lago_images.cli import main

main()
