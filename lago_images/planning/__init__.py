"""Decide what is affected, and why, before anything is done."""
