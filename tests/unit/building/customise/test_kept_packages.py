"""What guests hand on to be kept: any names, contents and times that their commands like."""

import json
import os
import socket

import pytest

from lago_images.building.caches import Kind
from lago_images.building.customise.namespace import guest_archives, kept_packages
from lago_images.building.customise.namespace.kept_packages import KeptPackages
from tests.support.builders import spec

TIME = 1_600_000_000
NAMES = (
    "lago-one_1.0_all.deb",
    "mount_1%3a2.38-1+b1~x_amd64.deb",
    "libstdc++6_12.2.0-14+deb12u1_amd64.deb",
)


@pytest.fixture
def guests(tmp_path):
    folder = tmp_path / "fetched"
    folder.mkdir()
    return folder


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def kept(cache, name="one", arch="x86_64"):
    return KeptPackages.of(spec(name, "layer:base", arch=arch), cache)


def fetched(folder, *names, data=b"package"):
    for name in names:
        (folder / name).write_bytes(data + name.encode("utf-8", "surrogateescape"))
        os.utime(folder / name, (TIME, TIME))


def given(tmp_path, packages):
    folder = tmp_path / "given"
    folder.mkdir()
    size = packages.give(folder)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert size == sum(map(len, found.values()))
    assert {int(path.stat().st_mtime) for path in folder.iterdir()} <= {TIME}
    return found


def files(cache):
    return sorted(path.suffix for path in (cache / Kind.GUEST_PACKAGES).iterdir())


def test_what_was_fetched_is_given_to_the_next_build_with_its_time(tmp_path, guests, cache):
    fetched(guests, *NAMES)
    kept(cache).keep(guests)
    found = given(tmp_path, kept(cache))
    assert found == {name: b"package" + name.encode() for name in NAMES}


def test_equal_files_are_kept_once(guests, cache):
    for name in NAMES:
        (guests / name).write_bytes(b"same")
    kept(cache).keep(guests)
    kept(cache, "other").keep(guests)
    assert files(cache) == [".deb", ".json", ".json"]


@pytest.mark.parametrize(("name", "arch"), [("other", "x86_64"), ("one", "aarch64")])
def test_another_image_is_given_nothing(tmp_path, guests, cache, name, arch):
    fetched(guests, *NAMES)
    kept(cache).keep(guests)
    assert given(tmp_path, kept(cache, name, arch)) == {}


@pytest.mark.parametrize(
    "name",
    [
        "lago.deb",
        "lago_1_all.deb.FAILED",
        "lago_1_all.dsc",
        "_1_all.deb",
        "-lago_1_all.deb",
        ".lago_1_all.deb",
        "Lago_1_all.deb",
        "lago_1_all_x.deb",
        "lago_1 2_all.deb",
        "lago_1_all.deb\n",
        "lago_1:2_all.deb",
        "lago_\x1b[2J_all.deb",
        "lago_\udcff_all.deb",
        f"lago_{'1' * 200}_all.deb",
    ],
)
def test_a_name_that_apt_does_not_give_is_not_taken(guests, cache, name):
    fetched(guests, name)
    kept(cache).keep(guests)
    assert not (cache / Kind.GUEST_PACKAGES).exists()


def test_only_regular_files_are_taken(tmp_path, guests, cache):
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    (guests / "link_1_all.deb").symlink_to(secret)
    os.mkfifo(guests / "pipe_1_all.deb")
    (guests / "folder_1_all.deb").mkdir()
    (guests / "empty_1_all.deb").touch()
    (guests / "lost_1_all.deb").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as listening:
        # Its path is longer than a socket's name may be.
        folder = os.open(guests, os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{folder}/socket_1_all.deb")
        os.close(folder)
    fetched(guests, "good_1_all.deb")
    kept(cache).keep(guests)
    assert list(given(tmp_path, kept(cache))) == ["good_1_all.deb"]


def test_no_more_files_are_taken_than_an_image_may_have(tmp_path, guests, cache, monkeypatch):
    monkeypatch.setattr(kept_packages, "MOST_FILES", 3)
    fetched(guests, *(f"lago{number}_1_all.deb" for number in range(10)))
    kept(cache).keep(guests)
    assert len(given(tmp_path, kept(cache))) == 3


def test_no_more_bytes_are_taken_than_an_image_may_have(tmp_path, guests, cache):
    fetched(guests, "a_1_all.deb", "c_1_all.deb")
    with (guests / "b_1_all.deb").open("wb") as file:
        file.truncate(guest_archives.MOST_BYTES - 10)
    kept(cache).keep(guests)
    assert sorted(given(tmp_path, kept(cache))) == ["a_1_all.deb", "c_1_all.deb"]


@pytest.mark.parametrize("moment", [-(2**40), 2**40])
def test_a_time_of_no_calendar_is_told_as_one(guests, cache, moment):
    fetched(guests, "lago_1_all.deb")
    os.utime(guests / "lago_1_all.deb", (moment, moment))
    kept(cache).keep(guests)
    [entry] = json.loads(kept(cache).listing.read_bytes())
    assert entry["time"] == (0 if moment < 0 else 2**32 - 1)


def test_a_build_that_fetches_nothing_leaves_nothing_to_be_given(tmp_path, guests, cache):
    fetched(guests, *NAMES)
    kept(cache).keep(guests)
    for path in guests.iterdir():
        path.unlink()
    kept(cache).keep(guests)
    assert given(tmp_path, kept(cache)) == {}
    assert ".json" not in files(cache)


@pytest.mark.parametrize("damage", [b"", b"other", b"packagE"])
def test_a_damaged_file_is_not_given_and_removed(tmp_path, guests, cache, damage):
    fetched(guests, NAMES[0])
    kept(cache).keep(guests)
    [path] = (cache / Kind.GUEST_PACKAGES).glob("*.deb")
    path.write_bytes(damage)
    assert given(tmp_path, kept(cache)) == {}
    assert not path.exists()


def entry(**changed):
    usual = {"file": "a_1_all.deb", "size": 1, "time": TIME, "sha256": "0" * 64}
    return json.dumps([{**usual, **changed}]).encode()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[",
        b"{}",
        b"\xff",
        entry(file="../../a_1_all.deb"),
        entry(file="a_1_all.deb\n"),
        entry(sha256="../x"),
        entry(size=-1),
        entry(time=2**70),
    ],
)
def test_a_damaged_list_gives_nothing(tmp_path, cache, text):
    packages = kept(cache)
    packages.listing.parent.mkdir(parents=True)
    packages.listing.write_bytes(text)
    assert given(tmp_path, packages) == {}


def test_what_is_forgotten_is_not_given(tmp_path, guests, cache):
    fetched(guests, *NAMES)
    kept(cache).keep(guests)
    kept(cache).forget()
    kept(cache).forget()
    assert given(tmp_path, kept(cache)) == {}
