import pytest

from lago_images.cli.tables import table
from lago_images.console import wrapped

HEADS = ("IMAGE", "ARCH", "ACTION", "REASON")
LONG = "spec: image-specs/with-nfs changed in 1a2b3c4 because of the new kernel"
ROWS = [
    ("debian-12-with-a-name-of-37-character", "x86_64", "build", LONG),
    ("", "", "", "base: its base debian-12 is built"),
    ("fedora", "x86_64", "keep", ""),
]


def test_rows_in_a_file_are_aligned_and_not_wrapped():
    head, first, second, third = table(HEADS, ROWS, width=None)
    assert first.endswith(LONG)
    assert head.index("REASON") == first.index("spec:") == second.index("base:")
    assert third == f"{'fedora':<37}  x86_64  keep"


def test_on_80_columns_a_long_reason_is_wrapped_at_words():
    lines = table(HEADS, ROWS, width=80)
    assert max(map(len, lines)) <= 80
    at = lines[0].index("REASON")
    reasons = [line[at:].strip() for line in lines[1:]]
    assert " ".join(reasons).startswith(f"{LONG} base: its base debian-12 is built")
    assert len(reasons) > len(ROWS)


def test_on_40_columns_rows_are_stacked_without_cutting_words():
    lines = table(HEADS, ROWS, width=40)
    assert max(map(len, lines)) <= 40
    assert lines[0] == ROWS[0][0]
    assert lines[1:3] == ["  arch: x86_64", "  action: build"]
    assert set(LONG.split()) <= set(" ".join(lines).split())


@pytest.mark.parametrize("width", range(20, 120, 7))
def test_every_width_shows_every_image(width):
    lines = table(HEADS, ROWS, width=width)
    assert any(line.startswith(ROWS[0][0]) for line in lines)
    assert any(line.startswith("fedora") for line in lines)


def test_optional_columns_are_dropped_first():
    heads = ("name", "revision", "fingerprint", "commit")
    rows = [("debian-12-with-a-name", "12", "0123456789ab", "1a2b3c4d5e6f")]
    narrow = table(heads, rows, width=46, spare=("fingerprint", "commit"))
    assert narrow[0].split() == ["name", "revision", "commit"]
    assert table(heads, rows, width=None, spare=("fingerprint",))[0].split() == list(heads)


def test_a_row_that_has_no_room_in_one_line_keeps_the_optional_columns_too():
    heads = ("name", "revision", "fingerprint", "commit")
    rows = [("debian-12-with-a-name", "12", "0123456789ab", "1a2b3c4d5e6f")]
    assert table(heads, rows, width=30, spare=("fingerprint",)) == [
        "debian-12-with-a-name",
        "  revision: 12",
        "  fingerprint: 0123456789ab",
        "  commit: 1a2b3c4d5e6f",
    ]


def test_control_characters_of_a_repository_are_escaped():
    assert table(("a",), [("\x1b[2Jx\ny",)], width=None) == ["a", "xy"]


def test_a_url_is_not_cut():
    url = "https://images.example.org/images/debian-12/x86_64/b1/debian-12.qcow2.xz"
    assert url in wrapped(f"the disk is at {url}", 40)


def test_a_url_that_is_too_long_keeps_its_place():
    url = "https://images.example.org/images/debian-12/x86_64/b1/debian-12.qcow2.xz"
    assert wrapped(f"  {url}  41 B", 40, indent="    ") == [f"  {url}", "    41 B"]


def test_a_command_stands_in_one_line_where_it_fits_in_one():
    command = "lago-images repo list --all"
    assert wrapped(f"look at what there is: {command}", 40, indent="  ") == [
        "look at what there is:",
        f"  {command}",
    ]
    lines = wrapped(f"look at what there is: {command} --state any", 40, indent="  ")
    assert max(map(len, lines)) <= 40
