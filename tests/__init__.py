"""The tests, and what they share: ``from tests.tools import need``."""
