"""Lists of checksums as image makers write them, and which file a pattern means."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_images.building.bases.checksum_list import Listed, NoMatchError, choose, parse
from lago_images.disks.unpack import Checksum
from lago_images.errors import BuildError

A, B = "a" * 64, "b" * 64
LONG = "c" * 128


def listed(*names, digits=A):
    return [Listed(name=name, checksum=checksum(digits)) for name in names]


def checksum(digits):
    return Checksum(algorithm="sha256" if len(digits) == 64 else "sha512", digits=digits)


@pytest.mark.parametrize(
    ("line", "name", "digits"),
    [
        (f"{A}  disk.img", "disk.img", A),
        (f"{A} *disk.img", "disk.img", A),
        (f"{LONG}  disk.img", "disk.img", LONG),
        (f"{A.upper()}  ./disk.img", "disk.img", A),
        (f"SHA256 (disk.img) = {A}", "disk.img", A),
        (f"SHA512 (disk.img) = {LONG}", "disk.img", LONG),
        (f"SHA256(disk.img)= {A}", "disk.img", A),
        (f"SHA256 (a (copy).img) = {A}", "a (copy).img", A),
        (f"{A}  a disk.img\r", "a disk.img", A),
    ],
)
def test_lines_of_all_checksum_formats_are_read(line, name, digits):
    assert parse(line + "\n") == (Listed(name=name, checksum=checksum(digits)),)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# Fedora-Cloud-Base-Generic-44-1.7.x86_64.qcow2: 583532544 bytes",
        "Hash: SHA256",
        f"{'d' * 32}  md5.img",
        f"{'d' * 40}  sha1.img",
        f"MD5 (disk.img) = {'d' * 32}",
        f"SHA256 (disk.img) = {LONG}",
        f"SHA512 (disk.img) = {A}",
        f"SHA384 (disk.img) = {'d' * 96}",
        f"{A}  ../disk.img",
        f"{A}  sub/disk.img",
        f"{A}  disk\x1b[2J.img",
        f"{A}  {'n' * 256}",
        f"\\{A}  disk\\\\.img",
        f"{A}",
        f"{A}\tdisk.img",
    ],
)
def test_other_lines_are_ignored(line):
    assert parse(line + "\n") == ()


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        (["# disk.img: 398131200 bytes"], 398131200),
        (["# disk.img: 0 bytes"], 0),
        (["# disk.img: 12 bytes", "# disk.img: 12 bytes"], 12),
        (["# disk.img: 12 bytes", "# disk.img: 13 bytes"], None),
        (["# other.img: 12 bytes"], None),
        (["# disk.img: -1 bytes"], None),
        (["# disk.img: 1_000 bytes"], None),
        (["# disk.img: \u0661\u0662 bytes"], None),
        ([f"# disk.img: {'9' * 19} bytes"], None),
        (["# disk.img: 12 KiB"], None),
    ],
)
def test_a_comment_tells_the_size_of_a_file(lines, size):
    for text in ([*lines, f"SHA256 (disk.img) = {A}"], [f"SHA256 (disk.img) = {A}", *lines]):
        assert [each.size for each in parse("\n".join(text))] == [size]


@given(st.text())
def test_any_text_is_read_without_an_error(text):
    assert all("/" not in each.name for each in parse(text))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("f-44-*.x86_64.qcow2", ["f-44-1.7.x86_64.qcow2", "f-44-1.10.x86_64.qcow2"]),
        ("f-44-*.qcow2", ["f-44-1.7.qcow2", "f-44-1.7.1.qcow2"]),
        ("c-10-2*.qcow2", ["c-10-20250929.0.qcow2", "c-10-20251002.0.qcow2"]),
        ("a-1*.qcow2", ["a-10-20251126.0.qcow2", "a-10.1-20251125.0.qcow2"]),
        ("a-1*.qcow2", ["a-10.0-20251126.0.qcow2", "a-10.1-20251125.0.qcow2"]),
        ("Leap-*-Build*.qcow2", ["Leap-16.0-Build9.3.qcow2", "Leap-16.0-Build16.2.qcow2"]),
        ("u-*.img", ["u-20261101T0000.img", "u-20261102T0000.img"]),
    ],
)
def test_the_newest_matching_name_is_chosen(pattern, names):
    others = ["other-99.qcow2", "f-43-9.9.x86_64.qcow2", names[-1] + ".asc"]
    for order in (names, names[::-1]):
        assert choose(listed(*order, *others), pattern).name == names[-1]


def test_a_name_without_wildcards_matches_itself_only():
    entries = listed("disk.img", "diskximg", "disk.img.manifest")
    assert choose(entries, "disk.img").name == "disk.img"
    assert choose(listed("a[1]+.img", "a1.img"), "a[1]+.img").name == "a[1]+.img"


def test_many_wildcards_are_matched():
    long = "a" * 250
    with pytest.raises(NoMatchError):
        choose(listed(long), "*a" * 60 + "b")
    assert choose(listed(long), "*a" * 60).name == long
    assert choose(listed("a-1-b-2-b-c", "a-1-b-3-b-c"), "a-*-b-*-c").name == "a-1-b-3-b-c"


@given(st.text("ab*", max_size=8), st.text("ab", max_size=8))
def test_a_pattern_matches_like_a_shells(pattern, name):
    try:
        matches = choose(listed(name), pattern).name == name
    except NoMatchError:
        matches = False
    assert matches == fnmatch.fnmatchcase(name, pattern)


def test_the_strongest_checksum_is_used():
    entries = [*listed("disk"), *listed("disk", digits=LONG)]
    assert choose(entries, "disk").checksum == checksum(LONG)
    assert choose(entries[::-1], "disk").checksum == checksum(LONG)


def test_a_repeated_line_counts_once():
    assert choose(listed("disk", "disk"), "disk").name == "disk"


@pytest.mark.parametrize(
    ("names", "which"),
    [
        (["a-Azure-1.qcow2", "a-Generic-2.qcow2"], "a-Azure-1.qcow2, a-Generic-2.qcow2"),
        (["a-20260101.qcow2", "a-latest.qcow2"], "a-20260101.qcow2, a-latest.qcow2"),
        (["a-1.02.qcow2", "a-1.2.qcow2"], "a-1.02.qcow2, a-1.2.qcow2"),
        (["a-1.qcow2", "a-1-rc.qcow2"], "a-1-rc.qcow2, a-1.qcow2"),
    ],
)
def test_ambiguous_newest_names_are_refused(names, which):
    for order in (names, names[::-1]):
        with pytest.raises(BuildError) as caught:
            choose(listed(*order), "a-*.qcow2")
        assert caught.value.message.endswith(f"none is the newest: {which}")


def test_one_name_with_two_checksums_is_refused():
    with pytest.raises(BuildError, match="disk is listed with 2 sha256 checksums"):
        choose([*listed("disk"), *listed("disk", digits=B)], "disk")


@pytest.mark.parametrize("pattern", ["disk", "*.img", "other-*.qcow2"])
def test_a_pattern_without_a_match_is_refused(pattern):
    with pytest.raises(NoMatchError):
        choose(listed("disk.qcow2", "disk-1.img.sig"), pattern)
