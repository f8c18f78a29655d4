"""Read lists of checksums as image makers publish them, and choose a file from one. Pure.

Lines are those of sha256sum and sha512sum (``DIGITS  NAME``), or BSD's (``SHA256 (NAME) =
DIGITS``); both in GNU coreutils' manual, "cksum output modes". Fedora, Rocky and CentOS write a
comment with the file's size above each of BSD's: ``# NAME: 398131200 bytes``. Other lines say
nothing here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lago_images.console import first_of
from lago_images.disks.unpack import Checksum
from lago_images.errors import BuildError
from lago_images.specs.bases import ANY

_GNU = re.compile(r"([0-9A-Fa-f]+) [ *](.+)")
_BSD = re.compile(r"SHA(256|512) ?\((.+)\) ?= ?([0-9A-Fa-f]+)")
# At most 18 digits: more bytes than any file has.
_SIZE = re.compile(r"# (.+): ([0-9]{1,18}) bytes")
# Hexadecimal digits; MD5 and SHA-1, which have fewer, prove nothing.
_ALGORITHMS = {64: "sha256", 128: "sha512"}
# Linux's NAME_MAX.
_LONGEST = 255
_SHOWN = 3


class NoMatchError(BuildError):
    """A list has no file that is meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What a list says of a file.

    Attributes:
        name: The file's.
        checksum: The file's.
        size: Bytes; None where the list does not tell, or tells two sizes.
    """

    name: str
    checksum: Checksum
    size: int | None = None


def parse(text: str) -> tuple[Listed, ...]:
    """Return the lines that have a SHA-256 or SHA-512 of a file beside the list."""
    lines = [line.strip() for line in text.splitlines()]
    sizes: dict[str, set[int]] = {}
    for match in filter(None, map(_SIZE.fullmatch, lines)):
        sizes.setdefault(match[1], set()).add(int(match[2]))
    certain = {name: size for name, (size, *others) in sizes.items() if not others}
    return tuple(replace(each, size=certain.get(each.name)) for each in _listed(lines))


def choose(listed: Iterable[Listed], pattern: str) -> Listed:
    """Return the newest file that a pattern means, with its strongest checksum.

    ``*`` stands for any characters. Of several names the newest is the one with the highest
    version in them: parts between ``-`` and ``_`` are compared in turn, and the numbers in a part
    as numbers, so that 1.10 is after 1.9.

    Raises:
        NoMatchError: No name matches.
        BuildError: It is not clear which one is meant: the names differ in more than numbers, two
            have the same version, or one has two checksums.
    """
    wanted = _pattern(pattern)
    entries = list(listed)
    matches = {each.name: wanted.fullmatch(each.name) for each in entries}
    variable = {name: match.groups() for name, match in matches.items() if match}
    if not variable:
        raise NoMatchError(f"no file {pattern} is listed")
    newest = _newest(variable, pattern)
    matching = [each for each in entries if each.name == newest]
    strongest = max(each.checksum.algorithm for each in matching)
    chosen = {each for each in matching if each.checksum.algorithm == strongest}
    if len(chosen) > 1:
        raise BuildError(f"{newest} is listed with {len(chosen)} {strongest} checksums")
    return chosen.pop()


def _listed(lines: Iterable[str]) -> Iterator[Listed]:
    for line in lines:
        if match := _BSD.fullmatch(line):
            algorithm, name, digits = f"sha{match[1]}", match[2], match[3]
        elif match := _GNU.fullmatch(line):
            digits, name = match[1], match[2]
            algorithm = _ALGORITHMS.get(len(digits), "")
        else:
            continue
        name = name.removeprefix("./")
        is_beside = "/" not in name and name.isprintable() and len(name) <= _LONGEST
        if is_beside and _ALGORITHMS.get(len(digits)) == algorithm:
            checksum = Checksum(algorithm=algorithm, digits=digits.lower())
            yield Listed(name=name, checksum=checksum)


def _pattern(text: str) -> re.Pattern[str]:
    first, *others = map(re.escape, text.split(ANY))
    # Atomic, as in fnmatch.translate: many wildcards would else be tried in every combination.
    middle = "".join(f"(?>(.*?){part})" for part in others[:-1])
    return re.compile(first + middle + "".join(f"(.*){part}" for part in others[-1:]))


def _newest(variable: Mapping[str, Sequence[str]], pattern: str) -> str:
    """Return the name whose variable parts have the highest version."""
    names = sorted(variable, key=lambda name: _versions(variable[name]))
    kinds = {
        tuple(re.sub("[0-9._-]+", " ", part) for part in variable[name]): name for name in names
    }
    ties = [name for name in names if _versions(variable[name]) == _versions(variable[names[-1]])]
    if len(kinds) == 1 and len(ties) == 1:
        return names[-1]
    which = sorted(kinds.values() if len(kinds) > 1 else ties)
    raise BuildError(
        f"{pattern} means several files, of which none is the newest: {first_of(which, _SHOWN)}",
        hint="make the pattern narrower, so that the names differ in numbers only",
    )


def _versions(parts: Iterable[str]) -> list[list[list[int]]]:
    return [
        [[int(digits) for digits in re.findall("[0-9]+", word)] for word in re.split("[-_]", part)]
        for part in parts
    ]
