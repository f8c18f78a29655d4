"""Session fixtures: each server starts when the first test asks for it."""

from collections.abc import Iterator

import pytest

from tests.servers import run
from tests.servers.model import Server


@pytest.fixture(scope="session")
def ceph20() -> Iterator[Server]:
    with run.running_ceph20() as server:
        yield server


@pytest.fixture(scope="session")
def ceph18() -> Iterator[Server]:
    with run.running_ceph18() as server:
        yield server


@pytest.fixture(scope="session")
def swift() -> Iterator[Server]:
    with run.running_swift() as server:
        yield server


@pytest.fixture(scope="session")
def rclone() -> Iterator[Server]:
    with run.running_rclone() as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[Server]:
    with run.running_moto() as server:
        yield server
