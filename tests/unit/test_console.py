import io
import re
from contextlib import contextmanager

import pytest

from lago_images.console import PLAIN_SECONDS, Console, Mode, human_size
from tests.support.terminal import terminal


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (116_300_000, "110.9 MiB"),
        (6 * 2**30, "6.0 GiB"),
        (5 * 2**50, "5120.0 TiB"),
    ],
)
def test_sizes_are_in_powers_of_1024(count, text):
    assert human_size(count) == text


def say_everything(console):
    console.info("a fact")
    console.detail("a detail")
    console.output("an output")
    console.warn("a doubt")
    console.error("error: a failure")
    with console.group("a group"):
        console.problem("spec", 3, "wrong")


@pytest.mark.parametrize(
    ("levels", "lines"),
    [
        (
            {},
            [
                "a fact",
                "an output",
                "warning: a doubt",
                "error: a failure",
                "== a group",
                "spec:3: wrong",
            ],
        ),
        ({"quiet": True}, ["warning: a doubt", "error: a failure", "spec:3: wrong"]),
        (
            {"verbose": True},
            [
                "a fact",
                "a detail",
                "an output",
                "warning: a doubt",
                "error: a failure",
                "== a group",
                "spec:3: wrong",
            ],
        ),
    ],
)
def test_quiet_prints_warnings_and_failures_and_verbose_adds_details(levels, lines):
    stream = io.StringIO()
    say_everything(Console(stream=stream, **levels))
    assert stream.getvalue().splitlines() == lines


def test_a_quiet_run_on_github_has_annotations():
    stream = io.StringIO()
    say_everything(Console(stream=stream, mode=Mode.GITHUB, quiet=True))
    assert stream.getvalue().splitlines() == [
        "::warning::a doubt",
        "::error::a failure",
        "::error file=spec,line=3::wrong",
    ]


def test_only_warnings_and_failures_are_coloured_and_guest_colours_are_dropped():
    stream = io.StringIO()
    console = Console(stream=stream, paint=lambda line, kind: f"<{kind}>{line}</>")
    console.output("\x1b[31mred\x1b[0m")
    console.warn("a \x1b[32mdoubt")
    console.error("a failure")
    assert stream.getvalue().splitlines() == [
        "red",
        "<warning>warning: a doubt</>",
        "<error>a failure</>",
    ]


def test_lines_begin_with_the_time_where_a_clock_is_given():
    stream = io.StringIO()
    console = Console(stream=stream, moment=iter(["12:00:00", "12:00:15"]).__next__)
    console.info("first")
    console.error("second")
    assert stream.getvalue() == "12:00:00 first\n12:00:15 second\n"


def test_lines_are_wrapped_at_words_on_a_terminal_alone(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    path = "/a/path/that/is/longer/than/the/terminal/is/wide"
    told = {}
    for mode in Mode:
        stream = io.StringIO()
        console = Console(stream=stream, mode=mode)
        console.warn(f"something is wrong with this file: {path}")
        console.hint("look at what there is: lago-images repo list --all")
        console.output("| columns    of   a program,   as they are wide |")
        told[mode] = stream.getvalue().splitlines()
    assert told[Mode.TERMINAL] == [
        "warning: something is wrong with this",
        "  file:",
        f"  {path}",
        "hint: look at what there is:",
        "  lago-images repo list --all",
        "| columns    of   a program,   as they are wide |",
    ]
    assert [len(told[mode]) for mode in (Mode.PLAIN, Mode.GITHUB)] == [3, 3]


def test_progress_without_a_terminal_is_printed_at_intervals():
    stream, now = io.StringIO(), [0.0]
    console = Console(stream=stream, clock=lambda: now[0])
    with console.progress("reading", 12 << 20) as advance:
        advance(1 << 20)
        now[0] = PLAIN_SECONDS
        advance(2 << 20)
    assert stream.getvalue() == "reading: 3 of 12 MiB (25 %)\n"


NAME = "debian-12-with-a-long-name-of-forty-c: compressing"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_progress_bars_fit_on_one_line(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    console = Console(stream=stream, mode=Mode.TERMINAL)
    with console.progress(NAME, 300 << 20) as one, console.progress(NAME, 2 << 30) as other:
        one(150 << 20)
        other(1 << 30)
        console.info("a line " * 12)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    bars = [line for line in re.split(r"[\r\n]+", shown) if line.startswith("debian-12")]
    assert bars
    assert max(map(len, bars)) <= width
    assert any("%" in bar or "GiB" in bar or "MiB" in bar for bar in bars)
    assert all(len(line) <= width for line in shown.splitlines())


def test_a_terminal_shows_what_is_live_below_what_stays(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    with terminal(40) as screen:
        console = Console(
            stream=screen.stream, mode=Mode.TERMINAL, ticker=no_ticks, clock=lambda: 1.0
        )
        facts = ["one \x1b[31mred", "two"]
        with console.live(lambda _width: facts):
            console.info("a line that is longer than the terminal is wide")
            assert screen.lines() == [
                "a line that is longer than the terminal",
                "  is wide",
                "one red",
                "two",
            ]
            with console.progress("reading", 4 << 20) as advance:
                advance(1 << 20)
                facts.pop()
                console.warn("a doubt")
                assert screen.lines()[-3:] == [
                    "warning: a doubt",
                    "one red",
                    "reading 1/4 MiB 0 MiB/s",
                ]
        assert screen.lines()[-2:] == ["warning: a doubt", ""]


def test_more_live_lines_than_a_terminal_has_do_not_scroll(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    with terminal(40, lines=4) as screen:
        console = Console(stream=screen.stream, mode=Mode.TERMINAL, ticker=no_ticks)
        with console.live(lambda _width: [f"line {number}" for number in range(9)]):
            assert screen.lines() == ["line 0", "line 1", "line 2"]


def test_a_quiet_console_has_nothing_live():
    stream = io.StringIO()
    console = Console(stream=stream, mode=Mode.TERMINAL, quiet=True)
    with console.live(lambda _width: ["a line"]):
        pass
    assert stream.getvalue() == ""


@contextmanager
def no_ticks(_seconds, _call):
    yield
