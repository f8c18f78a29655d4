"""Fixtures for all tests, and which of them share a worker."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.servers.fixtures import ceph18, ceph20, moto, rclone, swift

__all__ = ["ceph18", "ceph20", "moto", "rclone", "swift"]

# A deadline is a timed assertion, and machines are noisy.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A shell without job control ignores SIGINT for what it starts in the background, and programs
# inherit that: no test of Ctrl-C would end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What shares something costly (a guest's two cores, a server, a converted client) shares a worker.
# The longest is begun first, so that the others go on beside it.
_GROUPS = {
    "emulation": (
        "tests/real/test_customise.py",
        "tests/real/test_bootstrap.py",
        "tests/real/test_boot.py",
        "tests/real/test_gate.py",
        "tests/real/clients/test_machines.py",
        "tests/real/clients/test_tutorial.py",
    ),
    # Their commands take as many processes and as much memory as they get.
    "namespaces": ("tests/real/test_engine", "tests/real/test_namespace_"),
    "publication": ("tests/functional/publication/",),
    "actions": ("tests/functional/test_actions.py", "tests/functional/test_tutorial_github.py"),
    "jenkins": ("tests/functional/test_jenkins.py",),
    "storage": ("tests/functional/storage/",),
    # The repository of 2,000 images takes a minute and a half.
    "catalogue": ("tests/functional/test_catalogue.py",),
    "clients": ("tests/real/clients/",),
    "firmware": ("tests/real/test_firmware.py",),
    "npm": ("tests/functional/test_github.py", "tests/functional/test_ci_files.py"),
    "planted": ("tests/functional/test_planted_bugs.py",),
}
_SERVERS = {"ceph20", "ceph18", "swift", "rclone"}
_LAST = len(_GROUPS)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Give every costly test its group before xdist reads that; put the groups first at last."""
    ranks = {name: rank for rank, name in enumerate(_GROUPS)}

    def rank(item: pytest.Item) -> int:
        mark = item.get_closest_marker("xdist_group")
        return ranks.get(mark.args[0], _LAST) if mark else _LAST

    for item in items:
        if group := _group(item):
            item.add_marker(pytest.mark.xdist_group(group), append=False)
    yield
    items.sort(key=rank)


def _group(item: pytest.Item) -> str | None:
    place = item.nodeid
    for group, places in _GROUPS.items():
        if place.startswith(places):
            return group
    return "storage" if _SERVERS & set(getattr(item, "fixturenames", ())) else None
