"""The quarantine: what may fail, until when, and what is wrong with its file."""

from datetime import date

import pytest

from lago_images.specs.quarantine import NOTICE_DAYS, Quarantine, day, ending, parse
from lago_images.specs.read import inspect

ISSUE = "https://example.org/issues/1"
ENTRY = f'[[quarantine]]\nimage = "fedora-*"\nissue = "{ISSUE}"\nuntil = 2026-12-31\n'
LAST = date(2026, 12, 31)


def quarantine(text=ENTRY):
    entries, problems = parse(text)
    assert problems == []
    return Quarantine(entries=entries)


def test_an_entry_of_an_image_holds_its_boot_and_all_of_its_tests_back_until_its_day():
    held = quarantine()
    for test in (None, "fedora-44.test"):
        assert held.holding("fedora-44", test, LAST)
        assert not held.holding("debian-12", test, LAST)
        assert not held.holding("fedora-44", test, date(2027, 1, 1))
        assert held.ended("fedora-44", test, date(2027, 1, 1))
        assert not held.ended("fedora-44", test, LAST)


@pytest.mark.parametrize(
    ("lines", "image", "test", "is_held"),
    [
        ('test = "*/10-nfs"', "a", "b.tests/10-nfs", True),
        ('test = "*/10-nfs"', "a", "b.tests/10-nfs-more", False),
        ('test = "*"', "a", None, False),
        ('test = "a.test"\nimage = "b"', "b", "a.test", True),
        ('test = "a.test"\nimage = "b"', "c", "a.test", False),
        ('image = "[ab]?"', "b1", None, True),
        ('image = "A"', "a", None, False),
    ],
)
def test_patterns_name_images_and_tests(lines, image, test, is_held):
    text = f'[[quarantine]]\n{lines}\nissue = "{ISSUE}"\nuntil = 2026-12-31\n'
    assert bool(quarantine(text).holding(image, test, LAST)) is is_held


def test_of_two_entries_the_longer_one_counts():
    shorter = ENTRY.replace("2026-12-31", "2026-12-01")
    held = quarantine(shorter + ENTRY)
    assert held.holding("fedora-44", None, date(2026, 11, 30)).until == LAST
    assert held.holding("fedora-44", None, LAST).line == 5


def test_a_day_is_that_of_utc():
    assert day(0) == date(1970, 1, 1)
    assert day(1_798_761_599) == LAST
    assert day(1_798_761_600) == date(2027, 1, 1)


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (NOTICE_DAYS + 1, ""),
        (NOTICE_DAYS, "ends in 7 days, on 2026-12-31: what it holds back will fail images again"),
        (1, "ends tomorrow, on 2026-12-31: what it holds back will fail images again"),
        (0, "ends today, on 2026-12-31: what it holds back will fail images again"),
        (-1, "ended on 2026-12-31: what it held back fails images again"),
    ],
)
def test_its_end_is_told_a_week_before(days, said):
    assert ending(LAST, date.fromordinal(LAST.toordinal() - days)) == said


GOOD = f'issue = "{ISSUE}"\nuntil = 2026-12-31\n'


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("[[quarantine]\n", 1, "not TOML: "),
        ("a = 1\n", 1, "unknown key 'a': entries are tables, [[quarantine]]"),
        ("quarantine = 1\n", 1, "entries are tables, [[quarantine]]"),
        (f"{ENTRY}\n[[quarantine]]\n{GOOD}", 6, "the entry names neither an image nor a test"),
        (f'{ENTRY}\n[[quarantine]]\nimage="x"\n', 6, "the entry has no issue"),
        (f'{ENTRY}\n[[quarantine]]\nimage="x"\n', 6, "the entry has no until"),
        (f'{ENTRY}[[quarantine]]\nimgae="x"\n{GOOD}', 6, "'imgae'; did you mean 'image'?"),
        (f'{ENTRY}[[quarantine]]\n{GOOD}image=""\n', 8, "image must be a string of 1 to 200"),
        (f'{ENTRY}[[quarantine]]\n{GOOD}image="\\u0007"\n', 8, "image must be a string of 1 to"),
        (f"[[quarantine]]\n{GOOD}test=['x']\n", 4, "test must be a string of 1 to 200"),
        (
            ENTRY.replace("2026-12-31", '"2026-12-31"'),
            4,
            "until must be a day such as 2026-12-31, without quotes",
        ),
        (ENTRY.replace("2026-12-31", "2026-12-31T00:00:00Z"), 4, "until must be a day such as"),
        (
            ENTRY.replace(ISSUE, "see the wiki"),
            3,
            "issue must be an http or https URL, not 'see the wiki'",
        ),
        (f"quarantine = [{{image = 'x', issue = '{ISSUE}'}}]\n", 1, "the entry has no until"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text, line, what):
    _, problems = parse(text)
    assert any(number == line and what in message for number, message in problems), problems


def test_a_bad_quarantine_is_a_problem_of_the_specs(tmp_path):
    folder = tmp_path / "image-specs"
    folder.mkdir()
    (folder / "a").write_text("#base=libguestfs:x\n#arch=x86_64\n#distro=el9\n")
    (folder / "quarantine.toml").write_text("[[quarantine]]\nimage = 1\n")
    found = [str(problem) for problem in inspect(tmp_path, "image-specs").problems]
    assert found == [
        "image-specs/quarantine.toml:2: image must be a string of 1 to 200 characters",
        "image-specs/quarantine.toml:1: the entry has no issue",
        "image-specs/quarantine.toml:1: the entry has no until",
    ]
    (folder / "quarantine.toml").write_bytes(b"\xff")
    [problem] = inspect(tmp_path, "image-specs").problems
    assert str(problem) == "image-specs/quarantine.toml: not UTF-8, as TOML must be"


def test_a_quarantine_of_nothing_is_noted(tmp_path):
    folder = tmp_path / "image-specs"
    folder.mkdir()
    (folder / "a").write_text("#base=libguestfs:x\n#arch=x86_64\n#distro=el9\n")
    (folder / "quarantine.toml").write_text(f'[[quarantine]]\ntest = "a.test"\n{GOOD}\n{ENTRY}')
    inspected = inspect(tmp_path, "image-specs")
    assert list(inspected.quarantine.notes(inspected.specs, date(2026, 12, 1))) == [
        (1, "there is no test a.test: remove the entry"),
        (6, "there is no image fedora-*: remove the entry"),
    ]
    test = folder / "a.test"
    test.write_text("#!/bin/sh\n")
    test.chmod(0o755)
    inspected = inspect(tmp_path, "image-specs")
    assert [line for line, _ in inspected.quarantine.notes(inspected.specs, LAST)] == [1, 6, 6]
