"""Read what a guest says of the files that it starts with: the answer of ``finish.sh``."""

import re
from collections.abc import Sequence

from lago_images.repository.records.boot_files import BootFile, BootFiles

_END = "boot-end"
_SIZE = re.compile(r"boot-size ([0-9]{1,15}) (/[^\x00-\x1f\x7f]{1,4096})")
_DIGEST = re.compile(r"boot-sha256 ([0-9a-f]{64}) [ *](/[^\x00-\x1f\x7f]{1,4096})")
_UNREAD = re.compile(r"boot-unread (/[^\x00-\x1f\x7f]{1,4096})")


def from_answer(lines: Sequence[str]) -> BootFiles | None:
    """Return the boot files in a guest's answer; None where it has not told all of them."""
    if _END not in lines:
        return None
    sizes = {match[2]: int(match[1]) for line in lines if (match := _SIZE.fullmatch(line))}
    digests = {match[2]: match[1] for line in lines if (match := _DIGEST.fullmatch(line))}
    unread = [match[1] for line in lines if (match := _UNREAD.fullmatch(line))]
    if sizes.keys() != digests.keys():
        return None
    files = (BootFile(path=path, size=sizes[path], sha256=digests[path]) for path in sizes)
    return BootFiles.of(files, unread)
