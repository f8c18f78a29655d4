"""Build images: from a spec to a tested, compressed, measured disk."""
