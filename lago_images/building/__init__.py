"""From a spec to a tested, compressed, measured disk."""
