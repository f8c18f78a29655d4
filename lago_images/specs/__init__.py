"""Specs: what they say, how they are read, what can be wrong with them."""
