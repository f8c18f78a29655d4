"""Check names, and find the known word that an unknown one comes near to."""

import difflib
import re
from collections.abc import Iterable

from lago_images.secret_text import without_keys

# The index grammar's section names (guestfs-tools builder/index-scan.l), less what could leave a
# directory or look like an option.
NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]*")
# The longest file made of a name is <name>.qcow2.metadata, and file systems stop at 255 bytes.
NAME_LENGTH = 200

# As `uname -m` and libguestfs spell them.
ARCHITECTURES = frozenset(
    ("x86_64", "aarch64", "armv7l", "i686", "ppc64", "ppc64le", "riscv64", "s390x")
)
ARCHITECTURE_ALIASES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "i386": "i686"}

# Of `bootstrap:`, with the code name that the distribution's archive uses.
BOOTSTRAP_RELEASES = {
    "debian-11": "bullseye",
    "debian-12": "bookworm",
    "debian-13": "trixie",
    "ubuntu-24.04": "noble",
    "ubuntu-26.04": "resolute",
}
# Of these alone for another architecture than x86_64. Debian 11 is at the end of its support, and
# Ubuntu has its packages for aarch64 in another archive, `ports.ubuntu.com`.
_BOOTSTRAP_AARCH64 = frozenset(("debian-12", "debian-13"))

_SHOWN = 60


def bootstrap_architectures(release: str) -> tuple[str, ...]:
    """Return the architectures that a release can be bootstrapped for."""
    return ("x86_64", "aarch64") if release in _BOOTSTRAP_AARCH64 else ("x86_64",)


def name_problem(name: str) -> str | None:
    """Return why a file's name cannot name an image; None if it can."""
    if not NAME.fullmatch(name):
        return (
            f"{shown(name)} cannot name an image: virt-builder's index allows letters, digits and "
            "-._ after a first letter or digit"
        )
    if len(name) > NAME_LENGTH:
        return f"the name has {len(name)} characters, more than {NAME_LENGTH}"
    return None


def suggestion(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return ``; did you mean 'x'?`` for the known word that comes nearest, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]!r}?" if near else ""


def shown(text: str) -> str:
    """Return text as a message may hold it: quoted, escaped, short and without keys."""
    # Before it is cut: nobody knows the rest of a key for one.
    safe = without_keys(text)
    short = ascii(safe) if len(safe) <= _SHOWN else ascii(safe[:_SHOWN]) + "…"
    return short.replace(r"\u2026", "…")
