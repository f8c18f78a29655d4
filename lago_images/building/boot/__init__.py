"""Boot a finished disk and judge it before it may be published."""
