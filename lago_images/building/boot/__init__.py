"""The boot test: a finished disk is started and judged before it may be published."""
