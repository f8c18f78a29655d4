"""Whether a manifest or a release can be trusted with the published files.

What a pull request's builder wrote is read like anything else from outside: every type and every
character is checked before it can reach an index, JSON or HTML.
"""

import re
from collections.abc import Mapping

from lago_images.console import whole
from lago_images.repository.layout import NAME, BuildKey, ReleaseKey
from lago_images.repository.manifest import Manifest
from lago_images.repository.release import Release

# As virt-builder and `uname -m` spell architectures; a letter keeps lago's version names unique.
ARCH = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
BUILD_ID = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]*")
FORMATS = ("qcow2", "raw")
_HEX = re.compile(r"[0-9a-f]+")
# Control characters, and what some readers take for the end of a line.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NOTES = re.compile(r"notes(?:\[[A-Za-z0-9_,.]+\])?")
_SUMS = {"sha1": 40, "sha256": 64, "sha512": 128}
_SIZES = ("size", "virtual_size", "compressed_size")
_LINES = ("name", "osinfo", "expand", "lvexpand", "version", "aliases")


def is_line(text: str) -> bool:
    """Whether a text can stand in one line of an index, a page or a terminal."""
    return not _UNPRINTABLE.search(text)


def line(text: str) -> str:
    """A text made fit for one line; no blanks at its ends, which a clearsigned text loses."""
    return " ".join(_UNPRINTABLE.sub(" ", text).split())


def is_notes(key: str) -> bool:
    """Whether a property is the index's ``notes`` or ``notes[language]``."""
    return bool(_NOTES.fullmatch(key))


def key_problems(key: BuildKey | ReleaseKey) -> list[str]:
    """What is wrong with the place of a build or a release."""
    problems = []
    if not NAME.fullmatch(key.name):
        problems.append(f"{key.name!r} is not an image's name")
    if not ARCH.fullmatch(key.arch):
        problems.append(f"{key.arch!r} is not an architecture")
    if isinstance(key, BuildKey) and not BUILD_ID.fullmatch(key.build_id):
        problems.append(f"{key.build_id!r} is not a build id")
    return problems


def manifest_problems(manifest: Manifest, key: BuildKey) -> list[str]:
    """What is wrong with the manifest read at ``key``: types first, as all else rests on them."""
    return _manifest_types(manifest) or [
        *([] if manifest.key == key else [f"it is the manifest of {manifest.key.folder}"]),
        *key_problems(manifest.key),
        *_disk_problems(manifest),
        *_property_problems(manifest),
    ]


def release_problems(release: Release, key: ReleaseKey) -> list[str]:
    """What is wrong with the release read at ``key``."""
    names = ("name", "arch", "fingerprint", "commit", "nonce", "reason")
    problems = [f"{name} is not text" for name in names if not _text(getattr(release, name))]
    problems += [
        f"{name} is not a whole number"
        for name in ("revision", "published")
        if not _whole(getattr(release, name))
    ]
    if not (release.build is None or _text(release.build)):
        problems.append("build is neither text nor null")
    if not (release.withdraws is None or _whole(release.withdraws)):
        problems.append("withdraws is neither a whole number nor null")
    if (release.build is None) == (release.withdraws is None):
        problems.append("it must either name a build or withdraw a revision")
    if problems:
        return problems
    if release.key != key:
        problems.append(f"it is release {release.key}")
    return problems + key_problems(key)


def _manifest_types(manifest: Manifest) -> list[str]:
    disk, base, boot = manifest.disk, manifest.base, manifest.boot
    texts = [
        *((name, getattr(manifest, name)) for name in ("name", "arch", "build_id")),
        *((name, getattr(manifest, name)) for name in ("fingerprint", "commit")),
        *((f"disk.{name}", getattr(disk, name)) for name in ("format", *_SUMS)),
        *((f"base.{name}", getattr(base, name)) for name in ("ref", "digest", "detail")),
    ]
    numbers = [
        *((name, getattr(manifest, name)) for name in ("created", "seconds")),
        *((f"disk.{name}", getattr(disk, name)) for name in _SIZES),
        ("packages", 0 if manifest.packages is None else manifest.packages),
    ]
    others = [
        ("dirty", manifest.dirty, isinstance(manifest.dirty, bool)),
        ("properties", manifest.properties, _strings(manifest.properties)),
        ("tools", manifest.tools, _texts(manifest.tools)),
        ("boot", boot, boot is None or (_number(boot.seconds) and _text(boot.accel))),
    ]
    return [
        *(f"{name} is {value!r}" for name, value in texts if not _text(value)),
        *(f"{name} is {value!r}" for name, value in numbers if not _whole(value)),
        *(f"{name} is {value!r}" for name, value, fits in others if not fits),
    ]


def _disk_problems(manifest: Manifest) -> list[str]:
    disk, problems = manifest.disk, []
    if disk.format not in FORMATS:
        problems.append(f"disk.format is {disk.format!r}")
    for name, length in _SUMS.items():
        value = getattr(disk, name)
        if len(value) != length or not _HEX.fullmatch(value):
            problems.append(f"disk.{name} is not {length} hexadecimal digits")
    if min(disk.size, disk.virtual_size, disk.compressed_size) < 1:
        problems.append("a size of the disk is not positive")
    return problems


def _property_problems(manifest: Manifest) -> list[str]:
    properties, problems = manifest.properties, []
    for key, value in properties.items():
        if (key in _LINES or is_notes(key)) and not is_line(value):
            problems.append(f"property {key} is not one printable line: {value!r}")
        elif not (_text(key) and _text(value)):
            problems.append(f"property {key!r} is not UTF-8: {value!r}")
    if properties.get("hidden", "false") not in ("true", "false"):
        problems.append(f"property hidden is {properties['hidden']!r}, not true or false")
    problems.extend(
        f"property aliases has {alias!r}, which is not a name"
        for alias in aliases(properties.get("aliases", ""))
        if not NAME.fullmatch(alias)
    )
    return problems


def aliases(text: str) -> list[str]:
    """The names in an ``aliases`` property, parted by blanks or commas."""
    return text.replace(",", " ").split()


def _text(value: object) -> bool:
    # A lone surrogate is text to JSON, and cannot be written.
    return isinstance(value, str) and whole(value) == value


def _whole(value: object) -> bool:
    # Within 63 bits, as virt-builder reads its numbers.
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _number(value: object) -> bool:
    # Neither infinite nor no number at all, both of which JSON can say in Python.
    return _whole(value) or (isinstance(value, float) and 0 <= value < 2**62)


def _strings(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(i, str) for p in value.items() for i in p)


def _texts(value: object) -> bool:
    return isinstance(value, Mapping) and all(_text(i) for pair in value.items() for i in pair)
