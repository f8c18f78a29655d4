"""The machine the work runs on: the only place that starts a process."""
