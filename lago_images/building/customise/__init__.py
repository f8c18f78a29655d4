"""Run a spec's commands, and clean up after them."""
