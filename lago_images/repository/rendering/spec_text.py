"""``spec.txt``: what the spec of an image says, for the readers of its page."""

import difflib
import re
from collections.abc import Iterator
from itertools import dropwhile, islice

from lago_images.host.redaction import redacted, without_password
from lago_images.specs.model import Spec

# Bytes. People read a page's frame; a spec of more is generated, and is in git.
LARGEST = 64 << 10
_END = re.compile(rb"(?<!\\)\n")


def render(spec: Spec) -> bytes:
    """Return the properties and commands of a spec, of at most ``LARGEST`` bytes.

    As the fingerprint has them: without comments. Passwords are left out as they are from the log,
    which has the same commands.
    """
    data = redacted("".join(_lines(spec))).encode()
    if len(data) <= LARGEST:
        return data
    # Between two commands: a line that ends with a backslash goes on in the next.
    ends = [match.end() for match in _END.finditer(data, 0, LARGEST - 100)]
    end = ends[-1] if ends else 0
    return data[:end] + f"# … {len(data) - end} bytes more\n".encode()


def command_changes(old: str, new: str) -> tuple[str, ...]:
    """Compare the commands of two such texts: a unified diff, with a line around each change.

    Empty where they are the same. Properties are left out: manifests have them.
    """
    changes = difflib.unified_diff(_commands(old), _commands(new), n=1, lineterm="")
    # Without the names of the two, which nobody knows here.
    return tuple(islice(changes, 2, None))


def _commands(text: str) -> list[str]:
    lines = text.removesuffix("\n").split("\n")
    return [*dropwhile(lambda line: line.startswith("#"), lines)]


def _lines(spec: Spec) -> Iterator[str]:
    for key, value in spec.properties.items():
        yield f"#{key}={value}\n"
    for operation in spec.operations:
        argument = without_password(f"--{operation.name}", operation.argument)
        # A backslash at the end of a line is how a spec has a line break in an argument.
        yield f"{operation.name} {argument}".rstrip(" ").replace("\n", "\\\n") + "\n"
