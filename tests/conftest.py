"""Fixtures for all tests."""

from hypothesis import settings

from tests.servers.fixtures import ceph18, ceph20, moto, rclone, swift

__all__ = ["ceph18", "ceph20", "moto", "rclone", "swift"]

# A deadline is a timed assertion, and machines are noisy.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
