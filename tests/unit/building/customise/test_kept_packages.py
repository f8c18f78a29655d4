"""What guests hand on to be kept: any names, contents and times that their commands like."""

import json
import os
import socket
import stat

import pytest

from lago_images.building.caches import Kind
from lago_images.building.customise.namespace import guest_archives, kept_packages
from lago_images.building.customise.namespace.kept_packages import KeptPackages
from lago_images.settings import Settings
from tests.support.builders import spec
from tests.support.images import a_context

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


def kept(cache, name="one", arch="x86_64", repository="s3://bucket"):
    settings = Settings(folder=cache.parent, repository=repository)
    context = a_context(cache.parent, settings=settings)
    return KeptPackages.of(spec(name, "layer:base", arch=arch), context)


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


@pytest.mark.parametrize(
    "other", [{"name": "other"}, {"arch": "aarch64"}, {"repository": "s3://bucket/other"}]
)
def test_another_image_is_given_nothing(tmp_path, guests, cache, other):
    fetched(guests, *NAMES)
    kept(cache).keep(guests)
    assert given(tmp_path, kept(cache, **other)) == {}


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
    left_out = kept(cache).keep(guests)
    assert left_out == 6
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


@pytest.mark.parametrize("damage", [b"", b"other", b"packagE", b"package" + bytes(100)])
def test_a_damaged_file_is_not_given_and_removed(tmp_path, guests, cache, damage):
    fetched(guests, NAMES[0])
    kept(cache).keep(guests)
    [path] = (cache / Kind.GUEST_PACKAGES).glob("*.deb")
    path.write_bytes(damage)
    assert given(tmp_path, kept(cache)) == {}
    assert not path.exists()


def test_more_behind_the_bytes_that_are_right_is_not_given(tmp_path, guests, cache):
    fetched(guests, NAMES[0])
    kept(cache).keep(guests)
    [path] = (cache / Kind.GUEST_PACKAGES).glob("*.deb")
    with path.open("ab") as file:
        file.truncate(2**40)
    assert given(tmp_path, kept(cache)) == {}


@pytest.mark.parametrize("suffix", [".deb", ".json"])
@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_nothing_but_regular_files_is_read_from_the_cache(tmp_path, guests, cache, put, suffix):
    fetched(guests, NAMES[0])
    kept(cache).keep(guests)
    [path] = (cache / Kind.GUEST_PACKAGES).glob(f"*{suffix}")
    path.unlink()
    put(path)
    assert given(tmp_path, kept(cache)) == {}


def test_a_file_that_is_listed_many_times_is_given_as_often_as_it_fits(
    tmp_path, guests, cache, monkeypatch
):
    fetched(guests, NAMES[0])
    kept(cache).keep(guests)
    [entry] = json.loads(kept(cache).listing.read_bytes())
    many = [{**entry, "file": f"lago{number}_1_all.deb"} for number in range(10)]
    kept(cache).listing.write_text(json.dumps(many))
    monkeypatch.setattr(kept_packages, "MOST_BYTES", 3 * entry["size"])
    assert kept(cache).size() == 3 * entry["size"]
    assert len(given(tmp_path, kept(cache))) == 3


def test_checkouts_with_the_same_path_of_a_repository_share_no_list(tmp_path):
    image = spec("base", "layer:base")
    lists = set()
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        context = a_context(tmp_path / name, settings=Settings(folder=tmp_path / name))
        lists.add(KeptPackages.of(image, context).listing.name)
    assert len(lists) == 2


@pytest.mark.parametrize("size", [1, 100])
def test_a_file_of_another_size_than_listed_is_not_given(tmp_path, guests, cache, size):
    fetched(guests, NAMES[0])
    kept(cache).keep(guests)
    [entry] = json.loads(kept(cache).listing.read_bytes())
    kept(cache).listing.write_text(json.dumps([{**entry, "size": size}]))
    assert given(tmp_path, kept(cache)) == {}


def test_a_folder_that_cannot_be_filled_is_left_empty(tmp_path, guests, cache):
    fetched(guests, NAMES[0])
    kept(cache).keep(guests)
    [entry] = json.loads(kept(cache).listing.read_bytes())
    kept(cache).listing.write_text(json.dumps([entry, entry]))
    with pytest.raises(FileExistsError):
        given(tmp_path, kept(cache))
    assert list((tmp_path / "given").iterdir()) == []


def test_what_is_handed_on_can_be_read_whatever_the_umask(tmp_path):
    (tmp_path / "one").write_bytes(b"package")
    before = os.umask(0o077)
    try:
        guest_archives.copy(str(tmp_path / "one"), str(tmp_path / "copy"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o644


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
