"""virt-builder's index: rendered, and read by the strictest of its clients' rules.

The grammar is that of guestfs-tools ``builder/index-scan.l`` and ``index-parse.y``, in the form
that clients before 1.55.6 take too: blank lines between sections and nowhere else.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from lago_images.errors import Problem
from lago_images.repository.records import layout
from lago_images.repository.records.fields import ARCH, FORMATS, aliases, is_notes, line
from lago_images.repository.records.layout import ImageId
from lago_images.repository.records.release import Release, ReleasedImage
from lago_images.repository.records.state import State

Key = tuple[str, str | None]
_SECTION = re.compile(r"\[([-A-Za-z0-9._]+)\]")
_FIELD = re.compile(r"([A-Za-z0-9_.]+)(?:\[([A-Za-z0-9_,.]+)\])?=(.*)")
_REQUIRED = ("arch", "file", "size")
_NUMBERS = ("size", "compressed_size", "revision")
# Within OCaml's 63 bits, which virt-builder reads numbers into.
_NUMBER = re.compile(r"[1-9][0-9]{0,18}")
_SHA512 = re.compile(r"[0-9a-f]{128}")
MARK = "# releases "


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One section: an image as virt-builder knows it. ``line`` is where it begins.

    ``fields`` are by key and subkey: ``checksum[sha512]`` is ``("checksum", "sha512")``.
    """

    name: str
    fields: dict[Key, str]
    line: int = 0

    @property
    def arch(self) -> str:
        return self.get("arch")

    @property
    def file(self) -> str:
        """Return the disk, relative to the index."""
        return self.get("file")

    @property
    def revision(self) -> int:
        """Return it as the client reads it: 1 where there is none."""
        return int(self.get("revision") or "1")

    @property
    def checksum(self) -> str:
        """Return the sha512 of the compressed disk; empty where there is none."""
        return self.get("checksum", "sha512")

    def get(self, key: str, subkey: str | None = None) -> str:
        return self.fields.get((key, subkey), "")


def listing_mark(state: State, image: ImageId | None = None) -> str:
    """Return the digest of the set of releases that a file was rendered from, and of those retired.

    They are those of one image, or of all.

    It stands in every rendered file, so that different sets never give the same bytes: a file
    that is right already for one publisher cannot then be changed back by a slower one, which
    read its ETag before and lists less.
    """
    images = state.images if image is None else (image,)
    releases = [release for each in images for release in state.history(*each)]
    copies = {release.public for release in releases if release.public}
    retired = {copy.retirement for copy in copies & state.retired}
    damaged = {f"{key} is damaged" for key in state.damaged if image in (None, key.image)}
    keys = sorted({*(str(release.key) for release in releases), *retired, *damaged})
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def render(state: State) -> bytes:
    """Render the index: the current revision of each image, by name and architecture.

    An alias that means two images is left out of those that ``conflicting_aliases`` names.
    """
    current = (state.current(*image) for image in state.images)
    conflicts = conflicting_aliases(state)
    entries = [
        entry(release, release.image, without=conflicts.get(release.key.image, {}))
        for release in current
        if release and release.image
    ]
    return to_bytes(entries, mark=listing_mark(state))


def conflicting_aliases(state: State) -> dict[ImageId, dict[str, str]]:
    """Find the aliases that an image must not be offered under, each with the name it stands for.

    virt-builder resolves an alias to a name before it looks at names and architectures
    (``builder/builder.ml``), so an alias that is another image's name would take that image's
    place on every client. Lint refuses both kinds among the specs of one checkout; a repository
    also offers images whose specs were deleted, and those of other branches. A name counts more
    than an alias, and of two aliases the one that was published last.
    """
    current = [release for image in state.images if (release := state.current(*image))]
    current.sort(key=lambda release: (release.published, release.name), reverse=True)
    owners = {release.name: release.name for release in current}
    conflicts: dict[ImageId, dict[str, str]] = {}
    for release in current:
        properties = release.manifest.properties if release.manifest else {}
        for alias in aliases(line(properties.get("aliases", ""))):
            owner = owners.setdefault(alias, release.name)
            if owner != release.name:
                conflicts.setdefault(release.key.image, {})[alias] = owner
    return conflicts


def to_bytes(entries: Iterable[Entry], *, mark: str) -> bytes:
    """Return the text of an index."""
    lines = [f"{MARK}{mark}\n"]
    for entry in entries:
        # Clients before 1.55.6 take a section only after a blank line, and refuse one inside it.
        lines += ["\n", f"[{entry.name}]\n"]
        for (key, subkey), value in entry.fields.items():
            lines.append(f"{key}[{subkey}]={value}\n" if subkey else f"{key}={value}\n")
    return "".join(lines).encode()


def entry(release: Release, image: ReleasedImage, *, without: Collection[str] = ()) -> Entry:
    """Make the section of a release; ``without`` are aliases that it is not offered under."""
    disk, properties = image.manifest.disk, image.manifest.properties
    offered = [a for a in aliases(line(properties.get("aliases", ""))) if a not in without]
    fields: dict[Key, str] = {
        ("name", None): line(properties.get("name", "")) or release.name,
        ("arch", None): release.arch,
        ("osinfo", None): line(properties.get("osinfo", "")),
        ("file", None): image.public.disk,
        # Of the compressed file: virt-builder compares it also with --no-check-signature.
        ("checksum", "sha512"): disk.sha512,
        ("format", None): disk.format,
        # What a guest sees. virt-builder does not notice the file's size in its place, which
        # upstream's scripts once put there.
        ("size", None): str(disk.virtual_size),
        ("compressed_size", None): str(disk.compressed_size),
        # virt-builder keeps a template by name, architecture and revision, without a checksum:
        # one revision with other bytes fails for every client that has the old ones.
        ("revision", None): str(release.revision),
        ("expand", None): line(properties.get("expand", "")),
        ("lvexpand", None): line(properties.get("lvexpand", "")),
        ("aliases", None): " ".join(offered),
        ("hidden", None): "true" if properties.get("hidden") == "true" else "",
    }
    fields |= {_key(key): line(text) for key, text in properties.items() if is_notes(key)}
    return Entry(name=release.name, fields={key: text for key, text in fields.items() if text})


def _key(text: str) -> Key:
    key, _, subkey = text.rstrip("]").partition("[")
    return key, subkey or None


def parse(data: bytes, path: str = layout.INDEX) -> tuple[list[Entry], list[Problem]]:
    """Read the entries of an (unsigned) index, and all that some client would refuse in it.

    An entry whose revision is no number, or an endless one, is not among the entries.
    """
    problems: list[Problem] = []
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return [], [Problem(path, None, f"not UTF-8: {error}")]
    if text and not text.endswith("\n"):
        problems.append(Problem(path, text.count("\n") + 1, "the last line has no end"))
    entries = _read(text.removesuffix("\n").split("\n") if text else [], path, problems)
    problems.extend(_repeated(entries, path))
    for entry in entries:
        problems.extend(Problem(path, entry.line, message) for message in _wrong(entry))
    return [entry for entry in entries if _NUMBER.fullmatch(entry.get("revision") or "1")], problems


def _read(lines: list[str], path: str, problems: list[Problem]) -> list[Entry]:
    entries: list[Entry] = []
    last: Key | None = None
    after_blank = True
    for number, text in enumerate(lines, 1):
        # The scanner drops a comment wherever it stands; a blank line after it is none in between.
        if text.startswith("#"):
            continue
        message, last = _take(text, number, entries, last, after_blank)
        if message:
            problems.append(Problem(path, number, message))
        after_blank = text == ""
    return entries


def _take(
    text: str, number: int, entries: list[Entry], last: Key | None, after_blank: bool
) -> tuple[str, Key | None]:
    """Take one line into the last of ``entries``; what is wrong with it, and the open field."""
    # A carriage return is a syntax error to virt-builder, which then refuses the whole source.
    if "\r" in text or "\0" in text:
        return "a carriage return or NUL", last
    if match := _SECTION.fullmatch(text):
        entries.append(Entry(name=match[1], fields={}, line=number))
        return "" if after_blank else "no blank line before the section", None
    if text == "" or not entries:
        return f"neither section nor comment: {text!r}" if text else "", None
    # As in an e-mail's header: a line that begins with a blank goes on with the field before it.
    if text[0] in " \t" and last is not None:
        entries[-1].fields[last] += "\n" + text[1:]
        return "", last
    return _take_field(text, entries[-1], after_blank)


def _take_field(text: str, entry: Entry, after_blank: bool) -> tuple[str, Key | None]:
    match = _FIELD.fullmatch(text)
    if not match:
        return f"neither section, field nor comment: {text!r}", None
    key = (match[1], match[2])
    repeated = key in entry.fields
    entry.fields[key] = match[3]
    if repeated:
        return f"the field {text.partition('=')[0]} is there twice", key
    return "a blank line inside the section" if after_blank else "", key


def _repeated(entries: Iterable[Entry], path: str) -> Iterator[Problem]:
    # To virt-builder this is a corrupt source, and no image of it is offered.
    seen: set[ImageId] = set()
    for entry in entries:
        image = ImageId(entry.name, entry.arch)
        if image in seen:
            yield Problem(path, entry.line, f"{entry.name} for {entry.arch} is there twice")
        seen.add(image)


def _wrong(entry: Entry) -> Iterator[str]:
    for key in _REQUIRED:
        if not entry.get(key):
            yield f"{entry.name} has no {key}"
    for key in _NUMBERS:
        if (number := entry.get(key)) and not _NUMBER.fullmatch(number):
            yield f"{entry.name}: {key} is {number[:40]!r}, not a number"
    if entry.arch and not ARCH.fullmatch(entry.arch):
        yield f"{entry.name}: arch is {entry.arch!r}"
    # virt-builder resolves it against the index's URL: an absolute one would leave the repository.
    if entry.file.startswith("/") or "://" in entry.file or ".." in entry.file.split("/"):
        yield f"{entry.name}: file is {entry.file!r}, not relative to the index"
    # virt-builder wants one of every template as soon as the index is signed.
    if not _SHA512.fullmatch(entry.checksum):
        yield f"{entry.name} has no sha512 checksum"
    if entry.get("format") not in ("", *FORMATS):
        yield f"{entry.name}: format is {entry.get('format')!r}"
    if entry.get("hidden") not in ("", "true", "false"):
        yield f"{entry.name}: hidden is {entry.get('hidden')!r}"
