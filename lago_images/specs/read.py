"""Read a folder of specs, and check them against each other and the files they use.

Every regular file directly in the folder is a spec, but for hidden ones, those that editors and
git leave behind (``*~ *.bak *.orig *.rej *.swp #*#``), ``README*``, and tests (``guest_tests``).
Sub-folders hold the files that specs upload: one that looks like a spec there is a problem, since
its image would be taken for one that was given up. A link is read if it leads to a file inside the
repository.
"""

import errno
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from lago_images.errors import Problem, SpecError
from lago_images.secret_text import is_binary_key
from lago_images.specs import guest_tests, quarantine
from lago_images.specs.bases import (
    bottom,
    meant,
    misnamed_partitions,
    spec_below,
    unknown_firmware,
)
from lago_images.specs.choosing import did_you_mean
from lago_images.specs.folder import is_spec_name, spec_names, without_specs
from lago_images.specs.host_files import check_files, is_locked
from lago_images.specs.host_folder import (
    OPEN_PLAIN,
    ForbiddenPathError,
    HostFolder,
    PlainFile,
    TooLargeError,
    read_plain,
    refusal,
    why,
)
from lago_images.specs.model import BaseKind, Spec
from lago_images.specs.names import NAME
from lago_images.specs.parse import KEY, parse
from lago_images.specs.properties import REQUIRED, words
from lago_images.specs.quarantine import NONE, Quarantine

_LARGEST = 1 << 20
# The properties that every spec has stand in its first lines.
_SPEC_KEY = re.compile(rb"^#(base|arch|distro)=", re.MULTILINE)
_HEAD = 1 << 12
_NO_SPEC = (
    "and every file here is read as a spec: move what is none to a sub-folder, such as files/"
)


class Inspected(NamedTuple):
    """The content of a folder of specs: by name, with all problems, and the number of files.

    ``read`` are the files that the specs were read from, by name.
    """

    specs: dict[str, Spec]
    problems: list[Problem]
    files: int
    quarantine: Quarantine = NONE
    read: Mapping[str, PlainFile] = MappingProxyType({})


def read(root: Path, folder: str) -> dict[str, Spec]:
    """Return the specs of a folder, by name; raises as ``read_all``."""
    return read_all(root, folder).specs


def read_all(root: Path, folder: str) -> Inspected:
    """Return the specs of a folder, and the quarantine, neither of which has a problem.

    Args:
        root: The root of the repository.
        folder: The folder of the specs, relative to the root.

    Raises:
        SpecError: With every problem of every spec.
    """
    inspected = inspect(root, folder)
    if inspected.problems:
        stops = "nothing was done: a problem of any spec stops all commands that read specs"
        hint = stops if inspected.files else None
        raise SpecError(inspected.problems, hint=hint)
    return inspected


def inspect(root: Path, folder: str) -> Inspected:
    """Return the specs of a folder with every problem; raises nothing for what users wrote."""
    host = HostFolder(root)
    try:
        # Not ``resolve``: the specs may lie in the root itself, which it refuses.
        real = os.path.realpath(f"{host.root}/{folder}")
        if reason := refusal(real, host.root):
            return _nothing(folder, reason)
        top = host.open(real)
    except OSError as error:
        advice = (
            f" ({without_specs(Path(host.root))})" if isinstance(error, FileNotFoundError) else ""
        )
        return _nothing(folder, f"cannot be read: {error.strerror}{advice}")
    try:
        return _inspect(host, folder, top)
    finally:
        os.close(top)


def _nothing(folder: str, reason: str) -> Inspected:
    return Inspected({}, [Problem(folder, None, f"the folder of the specs {reason}")], 0)


def _inspect(host: HostFolder, folder: str, top: int) -> Inspected:
    specs: dict[str, Spec] = {}
    broken: set[str] = set()
    problems: list[Problem] = []
    read: dict[str, PlainFile] = {}
    try:
        names = spec_names(top)
    except OSError as error:
        return _nothing(folder, f"cannot be read: {error.strerror}")
    for name in names:
        path = name if folder in {"", "."} else f"{folder.rstrip('/')}/{name}"
        file, problem = _file(host, path, top)
        spec = None
        if file is not None:
            text, problem = _text(file.data, path)
            spec, of_spec = parse(text, name=name, path=path)
            problems += of_spec
            read[name] = file
        if problem:
            problems.append(problem)
        if spec is None:
            broken.add(name)
        else:
            specs[name] = spec
    tests, of_tests = guest_tests.find(host, folder, top, {*specs, *broken})
    problems += of_tests
    specs = guest_tests.with_tests(specs, tests)
    problems += check(specs.values(), host, broken=broken)
    problems += _misplaced(top, folder)
    quarantined, of_quarantine = quarantine.read(host, folder)
    return Inspected(specs, [*problems, *of_quarantine], len(names), quarantined, read)


def _misplaced(top: int, folder: str) -> Iterator[Problem]:
    """Yield the files in sub-folders that look like specs."""
    for directory, below, names, opened in os.fwalk(".", dir_fd=top):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(filter(is_spec_name, names)) if directory != "." else ():
            path = f"{folder.rstrip('/')}/{directory.removeprefix('./')}/{name}"
            if _looks_like_spec(name, opened):
                message = (
                    f"looks like a spec, which are not read in sub-folders: move it to {folder}/"
                )
                yield Problem(path, None, message)


def _looks_like_spec(name: str, folder: int) -> bool:
    try:
        descriptor = os.open(name, OPEN_PLAIN, dir_fd=folder)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        keys = set(_SPEC_KEY.findall(file.read(_HEAD)))
    return len(keys) == len(REQUIRED)


def _file(host: HostFolder, path: str, folder: int) -> tuple[PlainFile | None, Problem | None]:
    """Return a spec's file, None when there is none to parse, and why there is none."""
    try:
        file = _opened(host, path, folder)
    except TooLargeError as error:
        return None, Problem(path, None, f"{error}, {_NO_SPEC}")
    except ForbiddenPathError as error:
        return None, Problem(path, None, str(error))
    except OSError as error:
        return None, Problem(path, None, f"cannot be read: {why(error)}")
    problem = _no_text(file.data)
    return (None, Problem(path, None, problem)) if problem else (file, None)


def _no_text(data: bytes) -> str:
    """Return why a file is no spec whatever it says; nothing for text, in any encoding."""
    # Text may begin with the same byte: "Š" does in UTF-8.
    if is_binary_key(data) and not _is_text(data):
        return KEY
    if is_locked(data):
        return "is locked by git-crypt (git-crypt unlock)"
    return f"is no text, {_NO_SPEC}" if b"\0" in data and not _is_text(data) else ""


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _text(data: bytes, path: str) -> tuple[str, Problem | None]:
    """Return a spec's text, and what is wrong with it."""
    try:
        return data.decode(), None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8: byte 0x{data[error.start]:02x}"
        return data.decode(errors="replace"), Problem(path, line, message)


def _opened(host: HostFolder, path: str, folder: int) -> PlainFile:
    """Read a spec in the open ``folder``."""
    try:
        descriptor = os.open(path.rpartition("/")[2], OPEN_PLAIN, dir_fd=folder)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        try:
            return host.read_file(path, most=_LARGEST)
        except ForbiddenPathError as refused:
            raise ForbiddenPathError(f"the link {refused}") from None
    try:
        return read_plain(descriptor, _LARGEST)
    finally:
        os.close(descriptor)


def check(
    specs: Iterable[Spec], host: HostFolder, *, broken: Collection[str] = ()
) -> list[Problem]:
    """Return every problem between specs, and with the host files they read.

    Args:
        specs: All specs of a folder.
        host: The root of the repository, that host paths are relative to.
        broken: Names of specs that are there and could not be understood: a layer on one of them
            is no further problem.
    """
    by_name = {spec.name: spec for spec in specs}
    problems = [*_names(by_name, broken), *_aliases(by_name, broken)]
    for spec in by_name.values():
        if spec.base.kind is BaseKind.LAYER:
            problems += _layer(spec, by_name, broken)
        problems += check_files(spec, host)
        if problem := guest_tests.untestable(spec):
            problems.append(problem)
    return [*problems, *_cycles(by_name)]


def _names(specs: Mapping[str, Spec], broken: Collection[str]) -> Iterator[Problem]:
    """Yield names that some file systems and people take for one another."""
    alike: dict[str, list[str]] = {}
    for name in sorted({*specs, *broken}):
        alike.setdefault(name.casefold(), []).append(name)
    for names in alike.values():
        for name, other in zip(names, [*names[1:], names[0]], strict=True):
            if name != other and name in specs:
                message = f"the name differs from {other!r} only in case"
                yield Problem(specs[name].path, None, message)


def _aliases(specs: Mapping[str, Spec], broken: Collection[str]) -> Iterator[Problem]:
    """Yield aliases that two images claim.

    Of any architectures: virt-builder resolves an alias before it looks at those.
    """
    owners = {name: name for name in (*specs, *broken)}
    for name, spec in sorted(specs.items()):
        if "aliases" not in spec.properties:
            continue
        for alias in words(spec.properties["aliases"]):
            owner = owners.setdefault(alias, name)
            if owner != name:
                line = spec.lines["aliases"]
                yield Problem(spec.path, line, f"the alias {alias!r} means {owner!r} already")


def _layer(spec: Spec, specs: Mapping[str, Spec], broken: Collection[str]) -> Iterator[Problem]:
    base = specs.get(spec.base.name)
    line = spec.base.line
    if base is None:
        if spec.base.name not in broken and NAME.fullmatch(spec.base.name):
            name = spec.base.name
            near = did_you_mean(name, {*specs, *broken} - {spec.name})
            yield Problem(spec.path, line, f"there is no spec {name!r}; {meant(name, near)}")
    elif base.arch != spec.arch:
        message = f"arch is {spec.arch}, but the base {base.name!r} has {base.arch}"
        yield Problem(spec.path, spec.lines.get("arch", line), message)
    disk = bottom(spec, specs)
    if disk.base.kind is BaseKind.BOOTSTRAP:
        for key, message in (
            *misnamed_partitions(spec.properties, disk.properties),
            *unknown_firmware(spec.properties, disk.properties),
        ):
            yield Problem(spec.path, spec.lines[key], message)


def _cycles(specs: Mapping[str, Spec]) -> Iterator[Problem]:
    """Yield each cycle of layers once, at its first spec by name."""
    done: set[str] = set()
    for start in sorted(specs):
        trail: dict[str, None] = {}
        name: str | None = start
        while name is not None and name not in done and name not in trail:
            trail[name] = None
            name = spec_below(specs[name], specs)
        done.update(trail)
        if name in trail:
            cycle = list(trail)[list(trail).index(name) :]
            first = specs[name]
            message = "a cycle of layers: " + " -> ".join([*cycle, name])
            yield Problem(first.path, first.base.line, message)
