"""What a guest's apt fetched is not fetched again; and whatever is kept, a guest gets the same."""

import hashlib
import json
import os
import random
import shutil
import subprocess
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import pytest

from lago_images.building.caches import Kind
from lago_images.building.customise.namespace import user_namespace
from lago_images.errors import BuildError
from lago_images.host.process import Runner
from tests.support.files import serving
from tests.support.images import read_ext4
from tests.support.namespaces import in_namespaces, need_namespaces, small
from tests.support.trees import files
from tests.tools import need

pytestmark = pytest.mark.real
need("dpkg-deb", "qemu-img")
need_namespaces()

MADE = 1_600_000_000
INSTALL = r"""write /etc/apt/sources.list:deb [trusted=yes lang=none] http://archive.test/repo ./\

run-command rm -f /etc/apt/sources.list.d/*
install lago-one,lago-two
"""


@pytest.fixture(scope="module")
def base(debian12):
    return small(debian12)


def deb(folder, name, version="1.0", size=300_000):
    """A package of one file, which cannot be compressed."""
    root = folder / f"{name}-{version}"
    content = root / "usr/share/lago" / name
    (root / "DEBIAN").mkdir(parents=True)
    content.parent.mkdir(parents=True)
    content.write_bytes(random.Random(name + version).randbytes(size))
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
    control += "Maintainer: Tester <t@example.org>\nDescription: a package\n"
    (root / "DEBIAN/control").write_text(control)
    made = folder / f"{name}_{version}_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", root, made],
        check=True,
        capture_output=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(MADE)},
    )
    return made.read_bytes()


class Mirror:
    """An archive, at an address that guests may reach as their proxy; and one cache for all."""

    def __init__(self, folder, server):
        self.folder, self.server = folder, server
        self.cache = folder / "cache"
        self.debs: dict[str, bytes] = {}
        self.built = 0
        server.etag, server.modified = "", formatdate(MADE, usegmt=True)

    def publish(self, **versions):
        (self.folder / "debs").mkdir(exist_ok=True)
        self.server.content.clear()
        entries = []
        for name, version in versions.items():
            package = f"lago-{name}"
            file = f"{package}_{version}_all.deb"
            data = self.debs.get(file) or deb(self.folder / "debs", package, version)
            self.debs[file] = self.server.content[f"/repo/./{file}"] = data
            entries.append(
                f"Package: {package}\nVersion: {version}\nArchitecture: all\nFilename: ./{file}\n"
                f"Size: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
                "Maintainer: Tester <t@example.org>\nDescription: a package\n\n"
            )
        self.server.content["/repo/./Packages"] = "".join(entries).encode()

    def build(self, base, text=INSTALL, *, kept=True, **environ):
        """Build a disk of commands; returns it, and the packages of which bytes were sent."""
        self.server.requests.clear()
        self.built += 1
        folder = self.folder / str(self.built)
        folder.mkdir()
        usual = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        environ = {**usual, "http_proxy": self.server.url, **environ}
        cache = self.cache if kept else None
        done = in_namespaces(folder, base, text, network=True, environ=environ, kept=cache)
        sent = {
            path.rpartition("/")[2]
            for path, _, status in self.server.requests
            if path.endswith(".deb") and status in {200, 206}
        }
        return done.disk, sent

    def log(self):
        return (self.folder / str(self.built) / "log").read_text()

    @property
    def kept(self) -> Path:
        return self.cache / Kind.GUEST_PACKAGES

    def poison(self, content, time=MADE):
        """Say that an earlier build has fetched another content of every package."""
        [listing] = self.kept.glob("*.json")
        entries = []
        for each in json.loads(listing.read_bytes()):
            data = content(self.debs[each["file"]])
            digest = hashlib.sha256(data).hexdigest()
            (self.kept / f"sha256-{digest}.deb").write_bytes(data)
            entries.append({**each, "size": len(data), "sha256": digest, "time": time})
        listing.write_text(json.dumps(entries))


@contextmanager
def a_mirror(folder):
    addresses = sorted(user_namespace.own_addresses(Runner()))
    if not addresses:
        pytest.skip("this machine has no address but the loopback's")
    with serving(address=addresses[0]) as server:
        made = Mirror(folder, server)
        made.publish(one="1.0", two="1.0", three="1.0")
        yield made


@pytest.fixture(scope="module")
def first(tmp_path_factory, base):
    """A build with nothing kept: its disk, and the cache that it has filled."""
    with a_mirror(tmp_path_factory.mktemp("first")) as made:
        disk, sent = made.build(base)
        assert sent == BOTH
        yield disk, made.cache


@pytest.fixture
def cold(tmp_path):
    """A mirror, and a cache with nothing in it."""
    with a_mirror(tmp_path) as made:
        yield made


@pytest.fixture
def warm(cold, first):
    """A mirror, and a cache with what an earlier build of the same commands has fetched."""
    shutil.copytree(first[1], cold.cache)
    return cold


BOTH = {"lago-one_1.0_all.deb", "lago-two_1.0_all.deb"}


def are_equal(one, other):
    compare = ["qemu-img", "compare", "-f", "raw", "-F", "raw", one, other]
    done = subprocess.run(compare, capture_output=True, text=True, timeout=300, check=False)
    return done.stdout.strip() == "Images are identical."


def test_what_was_fetched_is_not_fetched_again_and_the_disk_is_the_same(warm, base, first):
    disk, sent = warm.build(base)
    assert sent == set()
    assert are_equal(disk, first[0])
    more = INSTALL + "install lago-three\n"
    disk, sent = warm.build(base, more)
    assert sent == {"lago-three_1.0_all.deb"}
    assert "/usr/share/lago/lago-three" in files(disk)
    _, sent = warm.build(base, more)
    assert sent == set()


def test_what_a_newer_version_replaces_is_fetched_and_nothing_of_the_older_remains(warm, base):
    warm.publish(one="2.0", two="1.0")
    newer, sent = warm.build(base)
    assert sent == {"lago-one_2.0_all.deb"}
    fresh, _ = warm.build(base, kept=False)
    assert are_equal(newer, fresh)
    _, sent = warm.build(base)
    assert sent == set()


@pytest.mark.parametrize(
    "command",
    [
        "run-command apt-get clean",
        "run-command find / -xdev -name '*.deb' -printf '%p %u %g %m %s %T@\\n' >/srv/seen",
        "run-command cp -a /var/cache/apt/archives /srv/archives",
        "update",
    ],
)
def test_commands_see_and_leave_the_same_with_and_without(cold, base, command):
    text = f"{INSTALL}{command}\n"
    one, sent = cold.build(base, text)
    assert sent == BOTH
    other, sent = cold.build(base, text)
    assert sent == set()
    assert are_equal(one, other)


CHANGES = {
    "of the right size": lambda data: bytes(len(data)),
    "shorter": lambda data: data[: len(data) // 2],
    "shorter and wrong": lambda data: bytes(len(data) // 2),
    "longer": lambda data: data + b"more",
}


@pytest.mark.parametrize("time", [MADE, MADE + 1], ids=["same time", "other time"])
@pytest.mark.parametrize("what", CHANGES)
def test_whatever_is_kept_a_guest_gets_what_its_lists_say(warm, base, first, what, time):
    warm.poison(CHANGES[what], time)
    disk, sent = warm.build(base)
    assert sent == BOTH
    assert are_equal(disk, first[0])


def test_a_kept_file_that_makes_apt_fail_costs_one_beginning_and_no_more(warm, base, first):
    warm.poison(CHANGES["shorter and wrong"])
    disk, _ = warm.build(base)
    assert "beginning again without what was kept" in warm.log()
    assert are_equal(disk, first[0])
    _, sent = warm.build(base)
    assert sent == set()


def test_a_server_that_knows_no_ranges_sends_what_is_not_right(warm, base, first):
    warm.server.ranges = False
    _, sent = warm.build(base)
    assert sent == set()
    warm.poison(CHANGES["shorter and wrong"])
    disk, sent = warm.build(base)
    assert sent == BOTH
    assert are_equal(disk, first[0])


@pytest.mark.parametrize("environ", [{"CHANGE_FORK": "them"}, {"CHANGE_ID": "3"}])
def test_what_may_be_a_strangers_neither_reads_nor_fills_it(warm, base, environ):
    before = sorted(path.name for path in warm.kept.iterdir())
    _, sent = warm.build(base, INSTALL + "install lago-three\n", **environ)
    assert sent == BOTH | {"lago-three_1.0_all.deb"}
    assert sorted(path.name for path in warm.kept.iterdir()) == before


def test_a_cache_that_cannot_be_written_fails_no_build(cold, base, first):
    cold.cache.write_text("no folder")
    disk, _ = cold.build(base)
    assert "packages are not kept" in cold.log()
    assert are_equal(disk, first[0])


def test_commands_without_apt_are_given_nothing(warm, base):
    disk, _ = warm.build(base, "run-command ls -A /var/cache/*/archives/partial >/srv/seen\n")
    assert read_ext4(disk, "/srv/seen") == ""


def test_links_in_the_place_of_apts_folder_are_not_followed(warm, base):
    link = "rm -rf /var/cache/apt/archives; ln -s /fetched /var/cache/apt/archives"
    disk, _ = warm.build(base, f"run-command {link}\nrun-command apt-get --version\n")
    assert files(disk)["/var/cache/apt/archives"].content == "/fetched"


def test_a_build_that_fails_by_itself_fails_as_without(warm, base):
    with pytest.raises(BuildError, match="install lago-none failed"):
        warm.build(base, "install lago-none\n")
