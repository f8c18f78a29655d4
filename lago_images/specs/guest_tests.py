"""Find the tests of specs, and read what each says of how it is run.

``NAME.test`` beside the spec ``NAME`` is a test, and so is every file in the folder ``NAME.tests``
but hidden ones, READMEs and what editors leave behind. A test is a program that the guest's kernel
can start: a script with ``#!`` in front, or an ELF file. In one of its first lines it may say

    # lago-images: reboot=yes timeout=120 network=yes
"""

import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lago_images.errors import Problem
from lago_images.specs.bases import descent
from lago_images.specs.boot_check import boot_check
from lago_images.specs.choosing import did_you_mean
from lago_images.specs.folder import TEST, TESTS, is_left_out, is_test_name
from lago_images.specs.host_files import is_locked, pointed_to
from lago_images.specs.host_folder import ForbiddenPathError, HostFolder, why
from lago_images.specs.model import GuestTest, Spec
from lago_images.specs.names import NAME, shown, suggestion

# It is sent through the guest agent's port, piece by piece.
LARGEST = 1 << 20
LONGEST_TIMEOUT = 3600
_FIRST_LINES = 10
# As near as lago-image, lagoimages and lago-imgaes are to lago-images.
_NEAR = 0.8
_OPTIONS = re.compile(r"#+\s*lago-images:(.*)")
# What may read like it, and is a comment to the program: options, behind a word that comes near.
_COMMENT = re.compile(r"#+\s*([\w-]+)(.*)")
_OPTION = re.compile(r"[\w-]+=\S*")
_KEYS = ("network", "reboot", "timeout")
_ELF = b"\x7fELF"
_NAMED = "names of tests have letters, digits and -._ after a first letter or digit"
_SECONDS = re.compile(r"[1-9][0-9]{0,3}")


@dataclass(slots=True)
class _Finder:
    host: HostFolder
    folder: str
    known: Collection[str]
    tests: dict[str, list[GuestTest]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def complain(self, path: str, line: int | None, message: str) -> None:
        self.problems.append(Problem(path, line, message))

    def path(self, name: str) -> str:
        return name if self.folder in {"", "."} else f"{self.folder.rstrip('/')}/{name}"


def find(
    host: HostFolder, folder: str, top: int, specs: Collection[str]
) -> tuple[Mapping[str, list[GuestTest]], list[Problem]]:
    """Return the tests of each spec in a folder, in order, and everything that is wrong with them.

    Args:
        host: The root of the repository.
        folder: The folder of the specs, relative to that root.
        top: The same, opened.
        specs: The names of all specs, also of those that could not be understood.
    """
    finder = _Finder(host, folder, specs)
    # NAME.test is before NAME.tests.
    for name in filter(is_test_name, _names(top)):
        owner = name.removesuffix(TESTS if name.endswith(TESTS) else TEST)
        if owner not in specs:
            message = f"there is no spec {shown(owner)} that it could test"
            near = did_you_mean(owner, specs)
            finder.complain(finder.path(name), None, message + (f"; {near}" if near else ""))
        elif name.endswith(TESTS):
            _folder(name, owner, finder)
        else:
            _test(name, owner, finder)
    return finder.tests, finder.problems


def with_tests(specs: Mapping[str, Spec], own: Mapping[str, list[GuestTest]]) -> dict[str, Spec]:
    """Return the specs with their tests, behind those of what they stand on."""
    if not own:
        return dict(specs)
    return {
        name: replace(spec, tests=tuple(_inherited(spec, specs, own)))
        for name, spec in specs.items()
    }


def untestable(spec: Spec) -> Problem | None:
    """Return what is wrong with a spec that has tests, and no agent that could run them."""
    if not spec.own_tests or boot_check(spec.properties).has_agent:
        return None
    message = (
        f"with this boot-test no guest agent is asked, and it is what runs tests: remove "
        f"{spec.own_tests[0].name}, or write #boot-test=yes"
    )
    return Problem(spec.path, spec.lines.get("boot-test"), message)


def _inherited(
    spec: Spec, specs: Mapping[str, Spec], own: Mapping[str, list[GuestTest]]
) -> Iterator[GuestTest]:
    for each in reversed(list(descent(spec, specs))):
        yield from own.get(each.name, ())


def _folder(name: str, owner: str, finder: _Finder) -> None:
    path = finder.path(name)
    try:
        real = finder.host.resolve(path, tree=True)
        descriptor = finder.host.open(real)
        try:
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                message = f"is no folder: a single test is {owner}{TEST}"
                finder.complain(path, None, message)
                return
            names = _names(descriptor)
        finally:
            os.close(descriptor)
    except ForbiddenPathError as error:
        finder.complain(path, None, str(error))
    except OSError as error:
        finder.complain(path, None, f"cannot be read: {why(error)}")
    else:
        tests = [each for each in names if not is_left_out(each)]
        if not tests:
            is_below = finder.host.is_in_submodule(path)
            advice = " (git submodule update --init)" if is_below else ""
            finder.complain(path, None, f"has no tests in it{advice}")
        for each in tests:
            if NAME.fullmatch(each):
                _test(f"{name}/{each}", owner, finder)
            else:
                finder.complain(path, None, f"has a test named {shown(each)}: {_NAMED}")


def _names(descriptor: int) -> list[str]:
    with os.scandir(descriptor) as entries:
        return sorted(entry.name for entry in entries)


def _test(name: str, owner: str, finder: _Finder) -> None:
    path = finder.path(name)
    try:
        mode, data = finder.host.read_file(path, most=LARGEST)
    except ForbiddenPathError as error:
        finder.complain(path, None, str(error))
    except OSError as error:
        finder.complain(path, None, f"cannot be read: {why(error)}")
    else:
        test = GuestTest(spec=owner, name=name, path=path)
        for line, message in _content_problems(data, mode):
            finder.complain(path, line, message)
        finder.tests.setdefault(owner, []).append(_with_options(test, data, finder))


def _content_problems(data: bytes, mode: int) -> Iterator[tuple[int | None, str]]:
    if not mode & stat.S_IXUSR:
        yield None, "is a test and not executable: chmod +x, or git update-index --chmod=+x"
    if is_locked(data):
        yield None, "is locked by git-crypt (git-crypt unlock)"
    elif not pointed_to(data) and not data.startswith((b"#!", _ELF)):
        yield 1, "is a test, and its first line does not name what runs it, as #!/bin/sh does"
    elif data.startswith(b"#!") and data.partition(b"\n")[0].endswith(b"\r"):
        yield 1, "ends in a carriage return, which no guest finds a program with"


def _with_options(test: GuestTest, data: bytes, finder: _Finder) -> GuestTest:
    if not data.startswith(b"#!"):
        return test
    found = False
    for number, line in enumerate(data.decode(errors="replace").split("\n"), 1):
        match = _OPTIONS.match(line.strip())
        if match is None:
            if other := _misnamed(line.strip()):
                message = f"is no line of options: write # lago-images: {other}"
                finder.complain(test.path, number, message)
            continue
        if number > _FIRST_LINES:
            message = f"options of a test stand in its first {_FIRST_LINES} lines"
            finder.complain(test.path, number, message)
        elif found:
            finder.complain(test.path, number, "options of a test stand in one line")
        else:
            found = True
            test = _parsed(test, match[1], number, finder)
    return test


def _misnamed(line: str) -> str:
    """Return the options of a line that misspells ``lago-images:``; nothing of others."""
    match = _COMMENT.fullmatch(line)
    word = match[1].lower().replace("_", "-") if match else ""
    if match is None or not suggestion(word, ["lago-images"], cutoff=_NEAR):
        return ""
    # One by one: a single expression for all of them would try every way to part a long one.
    options = match[2].lstrip().removeprefix(":").split()
    return " ".join(options) if all(map(_OPTION.fullmatch, options)) else ""


def _parsed(test: GuestTest, text: str, line: int, finder: _Finder) -> GuestTest:
    options: dict[str, Any] = {}
    for word in text.split():
        key, _, value = word.partition("=")
        if key not in _KEYS:
            message = f"unknown option {shown(key)}{suggestion(key, _KEYS)}"
        elif key in options:
            message = f"{key} stands twice"
        elif key == "timeout" and not (_SECONDS.fullmatch(value) and int(value) <= LONGEST_TIMEOUT):
            message = f"timeout must be 1 to {LONGEST_TIMEOUT} seconds, not {shown(value)}"
        elif key != "timeout" and value not in {"yes", "no"}:
            message = f"{key} must be yes or no, not {shown(value)}"
        else:
            options[key] = int(value) if key == "timeout" else value == "yes"
            continue
        finder.complain(test.path, line, message)
    return replace(test, **options)
