"""A spec's commands, and the clean-up after them."""
