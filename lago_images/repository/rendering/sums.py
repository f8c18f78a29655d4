"""``SHA256SUMS``: the digests of what is offered, as coreutils' ``sha256sum -c`` reads them.

Every disk in every form, and the documents that lead scripts to disks.
"""

import re
from collections.abc import Iterable

from lago_images.errors import RepositoryError
from lago_images.repository.rendering.index import MARK
from lago_images.settings import FORMS

# No character that sha256sum would write escaped, and no way out of the repository's folder.
_SEGMENT = r"[A-Za-z0-9][-A-Za-z0-9._]*"
_DOCUMENT = rf"images\.json|latest/{_SEGMENT}\.json"
_DISK = rf"images/(?:{_SEGMENT}/){{3}}{_SEGMENT}\.(?:xz|{'|'.join(FORMS)})"
_LINE = re.compile(rf"([0-9a-f]{{64}})  ({_DISK}|{_DOCUMENT})")

Sum = tuple[str, str]


def render(sums: Iterable[Sum], *, mark: str = "") -> bytes:
    """Render the file of pairs of path and SHA-256, sorted by path.

    Args:
        sums: The pairs.
        mark: The digest of the set of releases, in a first line that ``sha256sum -c`` skips; see
            ``index.listing_mark``.

    Raises:
        RepositoryError: A path or digest cannot stand in the file, or a path comes twice.
    """
    first = [f"{MARK}{mark}\n"] if mark else []
    lines = [*first, *(f"{sha256}  {path}\n" for path, sha256 in sorted(sums))]
    # A lone surrogate is left to `parse`, which names the line that has it.
    data = "".join(lines).encode(errors="surrogatepass")
    parse(data, "SHA256SUMS to be written")
    return data


def parse(data: bytes, where: str) -> tuple[Sum, ...]:
    """Read the pairs of path and SHA-256 in a file that ``render`` wrote.

    Raises:
        RepositoryError: A line, named as ``where:line``, is not as ``render`` writes it.
    """
    text = data.decode(errors="replace")
    lines = text.split("\n")
    # A file that was cut off ends so, and its last digest may be half of one.
    if lines.pop():
        raise RepositoryError(f"{where}:{len(lines) + 1}: the last line has no end")
    sums: list[Sum] = []
    for number, line in enumerate(lines, start=1):
        if number == 1 and line.startswith(MARK):
            continue
        match = _LINE.fullmatch(line)
        if not match:
            message = "not a SHA-256, two blanks and the path of a disk or document"
            raise RepositoryError(f"{where}:{number}: {message}: {line[:200]!r}")
        if sums and sums[-1][0] >= match[2]:
            raise RepositoryError(f"{where}:{number}: {match[2]} is not in order, or twice")
        sums.append((match[2], match[1]))
    return tuple(sums)
