"""Which files of the host a spec's build reads."""

from collections.abc import Iterator
from typing import NamedTuple

from lago_images.spec.commands import COMMANDS, Reads
from lago_images.spec.model import BaseKind, Operation, Spec

# The commands that read something, looked up once.
_READING = {name: c.reads for name, c in COMMANDS.items() if c.reads is not Reads.NOTHING}
# What may stand before file: in a password's selector, any number of times (mlcustomize
# password.ml).
_LOCKED = ("lock:", "locked:")


class HostPath(NamedTuple):
    """A host path as a spec writes it; ``tree`` tells whether it may be a folder."""

    path: str
    line: int
    tree: bool


def host_files(spec: Spec) -> tuple[str, ...]:
    """The host paths that a spec's build reads, sorted, relative to the root of the repository.

    They may be folders, then with all that is in them. The spec itself is not among them.
    """
    return tuple(sorted({normal(host.path) for host in host_paths(spec)}))


def host_paths(spec: Spec) -> Iterator[HostPath]:
    """Every host path of a spec, as written and where."""
    if spec.base.kind is BaseKind.SIMPLE and "://" not in spec.base.name:
        yield HostPath(spec.base.name, spec.base.line, tree=False)
    for operation in spec.operations:
        reads = _READING.get(operation.name)
        if reads is not None:
            path = _path(operation, reads)
            if path is not None:
                yield HostPath(path, operation.line, tree=reads is Reads.TREE_TO)


def normal(path: str) -> str:
    """A path without empty and ``.`` parts; ``..`` stays, and ``.`` is the root itself."""
    return "/".join(part for part in path.split("/") if part not in {"", "."}) or "."


def _path(operation: Operation, reads: Reads) -> str | None:
    argument = operation.argument
    match reads:
        case Reads.FILE:
            return argument
        case Reads.FILE_TO | Reads.TREE_TO:
            return argument.partition(":")[0]
        case Reads.USER_SELECTOR:
            return _of_selector(argument.partition(":")[2])
        case _:
            return _of_selector(argument)


def _of_selector(selector: str) -> str | None:
    selector = unlocked(selector)
    return selector.removeprefix("file:") if selector.startswith("file:") else None


def unlocked(selector: str) -> str:
    """A selector without the ``locked:`` that may stand before it."""
    while selector.startswith(_LOCKED):
        selector = selector.partition(":")[2]
    return selector
