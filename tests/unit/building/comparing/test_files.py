"""How the files of two disks differ, in words."""

import stat
from dataclasses import replace

import pytest

from lago_images.building.comparing.disks import in_appliance
from lago_images.building.comparing.files import FileDifference, differing
from lago_images.building.comparing.tree import File

ONE = File(
    mode=stat.S_IFREG | 0o644,
    uid=0,
    gid=0,
    size=3,
    links=1,
    first_name="/a",
    modified=10**18,
    attributes=(),
    content="abc",
    device=b"",
)
LINK = replace(ONE, mode=stat.S_IFLNK | 0o777, content="target")


def told(old, new, *, with_times=True):
    found = list(differing({"/a": old}, {"/a": new}, with_times=with_times))
    return found[0].what if found else ()


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({}, ()),
        ({"mode": stat.S_IFREG | 0o4755}, ("mode 0644 → 4755",)),
        ({"mode": stat.S_IFIFO | 0o644}, ("kind",)),
        ({"uid": 5, "gid": 7}, ("owner 0:0 → 5:7",)),
        ({"size": 4, "content": "abcd"}, ("size 3 → 4", "content")),
        ({"links": 2, "first_name": "/b"}, ("names of one file",)),
        ({"attributes": ((b"user.x", b"y"),)}, ("extended attributes",)),
        (
            {"modified": 10**18 + 10**9 + 1},
            ("time 2001-09-09 01:46:40 → 2001-09-09 01:46:41.000000001",),
        ),
    ],
)
def test_every_change_has_its_word(changed, what):
    assert told(ONE, replace(ONE, **changed)) == what


def test_times_are_left_out_where_they_are_not_asked_for():
    assert told(ONE, replace(ONE, modified=1), with_times=False) == ()


def test_a_links_target_and_a_devices_number_are_told():
    assert told(LINK, replace(LINK, content="other")) == ("target",)
    device = replace(ONE, mode=stat.S_IFCHR | 0o644, device=b"1")
    assert told(device, replace(device, device=b"2")) == ("content",)


def test_what_one_disk_lacks_is_told_sorted():
    found = differing({"/b": ONE, "/d": ONE}, {"/a": ONE, "/d": ONE}, with_times=True)
    assert [(each.path, each.what) for each in found] == [("/a", ("new",)), ("/b", ("missing",))]


def test_only_salts_are_expected_of_the_appliance():
    files = (
        FileDifference(path="/etc/shadow", what=("content",)),
        FileDifference(path="/etc/shadow", what=("size 3 → 4", "content")),
        FileDifference(path="/etc/passwd", what=("content",)),
    )
    assert [bool(each.expected) for each in in_appliance(files)] == [True, False, False]
