"""Releases are made, withdrawn and collected here, and rendered."""
