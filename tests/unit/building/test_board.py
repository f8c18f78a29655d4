from contextlib import ExitStack

import pytest

from lago_images.building.board import Board
from lago_images.building.model import Phase

MIB = 2**20
NAMES = [f"debian-12-with-a-long-name-{letter * 10}" for letter in "abc"]


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def board(clock):
    """Three chains: one installs, one boots while it is sent, one waits."""
    board = Board(12, clock)
    with ExitStack() as stack:
        setup, sent, _ = [
            stack.enter_context(board.row(name, expected))
            for name, expected in zip(NAMES, (250, None, 300), strict=True)
        ]
        stack.enter_context(setup.under_way(Phase.SETUP))
        stack.enter_context(sent.under_way(Phase.UPLOAD))
        stack.enter_context(sent.under_way(Phase.BOOT))
        advance = sent.measure(421 * MIB)
        for _ in range(83):
            clock.now += 1
            advance(MIB)
        yield board


def test_80_columns_hold_names_of_37_characters_and_all_facts(board):
    assert len(NAMES[0]) == 37
    assert board.lines(80) == [
        f"1 of 12 {NAMES[0]} setup 1:23/4:10",
        f"2 of 12 {NAMES[1]} boot+upload 1:23 83/421 MiB 1/s",
        f"3 of 12 {NAMES[2]} waiting 1:23/5:00",
    ]


def test_40_columns_shorten_the_names(board):
    lines = board.lines(40)
    assert lines == [
        "1 of 12 debian-12-with-… setup 1:23/4:10",
        "2 of 12 debian-12-with-a-lo… upload 1:23",
        "3 of 12 debian-12-wit… waiting 1:23/5:00",
    ]
    assert {len(line) for line in lines} == {40}


@pytest.fixture
def uploading(clock):
    """Return the lines of three chains that send, so many seconds after they began."""

    def lines(elapsed, expected, width):
        board = Board(12, clock)
        with ExitStack() as stack:
            rows = [stack.enter_context(board.row(name, expected)) for name in NAMES]
            clock.now += elapsed - 1
            for row in rows:
                stack.enter_context(row.under_way(Phase.UPLOAD))
                stack.enter_context(row.under_way(Phase.BOOT))
                advance = row.measure(421 * MIB)
                advance(105 * MIB)
            clock.now += 1
            return board.lines(width)

    return lines


@pytest.mark.parametrize(
    ("elapsed", "expected", "name", "time"),
    [
        (754, 1510, "debian-12-with-a-long-name-aaaaaaa…", "12:34/25:10"),
        (4000, 5000, "debian-12-with-a-long-name-aaa…", "1:06:40/1:23:20"),
    ],
)
def test_80_columns_shorten_the_names_before_bytes_and_rate_go(
    uploading, elapsed, expected, name, time
):
    lines = uploading(elapsed, expected, 80)
    assert lines[0] == f"1 of 12 {name} upload {time} 105/421 MiB 105/s"
    assert {len(line) for line in lines} == {80}


@pytest.mark.parametrize(
    ("elapsed", "expected", "line"),
    [
        (754, 1510, "1 of 12 debian-12-wi… upload 12:34/25:10"),
        (4000, 5000, "1 of 12 debian-1… upload 1:06:40/1:23:20"),
    ],
)
def test_40_columns_keep_the_phase_and_the_time(uploading, elapsed, expected, line):
    lines = uploading(elapsed, expected, 40)
    assert lines[0] == line
    assert {len(line) for line in lines} == {40}


def test_a_wide_terminal_shows_full_words(board):
    assert board.lines(120)[1].endswith("boot+upload 1:23 83 of 421 MiB, 1 MiB/s")
    assert board.lines(120)[0].endswith("setup 1:23 of about 4:10")


def test_no_line_is_wider_than_the_terminal(board):
    for width in range(24, 140):
        assert max(map(len, board.lines(width))) <= width


def test_a_log_gets_a_sentence_for_each_image(board):
    assert board.lines(None) == [
        f"1 of 12 {NAMES[0]}: setup, 1:23 of about 4:10",
        f"2 of 12 {NAMES[1]}: boot+upload, 1:23, 83 of 421 MiB, 1 MiB/s",
        f"3 of 12 {NAMES[2]}: waiting, 1:23 of about 5:00",
    ]


def test_bytes_are_shown_during_their_phase_only(clock):
    board = Board(1, clock)
    with board.row("one", None) as row:
        with row.under_way(Phase.UPLOAD), row.under_way(Phase.BOOT):
            row.measure(20 * 1024 * MIB)(1024 * MIB)
            clock.now += 4
            assert board.lines(80) == ["1 of 1 one boot+upload 0:04 1.00 of 20.00 GiB, 0.25 GiB/s"]
        assert board.lines(80) == ["1 of 1 one waiting 0:04"]
    assert board.lines(80) == []


def test_a_skipped_image_is_counted(clock):
    board = Board(3, clock)
    board.skip()
    with board.row("two", None):
        assert board.lines(None) == ["2 of 3 two: waiting, 0:00"]


def test_the_rate_is_that_of_the_last_seconds(clock):
    board = Board(1, clock)
    with board.row("one", None) as row, row.under_way(Phase.UPLOAD):
        advance = row.measure(1000 * MIB)
        for speed in [50] * 10 + [2] * 10:
            clock.now += 1
            advance(speed * MIB)
        assert board.lines(None) == ["1 of 1 one: upload, 0:20, 520 of 1000 MiB, 2 MiB/s"]
