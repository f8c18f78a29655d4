"""Fixtures for all tests."""

from tests.servers.fixtures import ceph18, ceph20, moto, rclone, swift

__all__ = ["ceph18", "ceph20", "moto", "rclone", "swift"]
