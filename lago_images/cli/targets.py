"""Options that name what is written at the end of long work: what cannot be is refused before it.

The check is the callback of the option, so it comes before all that the command does.
"""

import os
import shlex
import tempfile
from pathlib import Path
from typing import Any

import click

from lago_images.addresses import SCHEME, file_path
from lago_images.errors import UsageError
from lago_images.host.files import is_replaceable


class LocalPath(click.Path):
    """Take a path of this machine, also as a ``file:`` URL; no other URL is the path of a file."""

    def __init__(self, **extra: Any) -> None:  # noqa: ANN401 -- click's own
        super().__init__(path_type=Path, **extra)

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | bytes | os.PathLike[str]:
        text = os.fspath(value)
        scheme = SCHEME.match(text)
        path = file_path(text) if scheme and scheme[1].lower() == "file" else text
        if text and (not path or (scheme and path == text) or path.lower().startswith("s3:")):
            raise self.refusal(text)
        return super().convert(path, param, ctx)

    def refusal(self, text: str) -> UsageError:
        """Return why a text that is a URL is refused."""
        return UsageError(
            f"{text} is no path of this machine", hint="name a path, or file:///FOLDER/NAME"
        )


FILE = LocalPath(dir_okay=False)
FOLDER = LocalPath(file_okay=False)


def writable(_ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file or folder that could not be made; folders above it may be missing."""
    if path is not None:
        is_folder = isinstance(param.type, click.Path) and param.type.dir_okay
        if not is_folder:
            _refuse_stream(f"{param.opts[-1]} {path}", path)
        folder = path if is_folder else path.parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        _refuse_unwritable(f"{param.opts[-1]} {path}", folder)
    return path


def refuse_unwritable_beside(path: Path, what: str) -> None:
    """Refuse a file whose folder is missing, or cannot be written; raises ``UsageError``."""
    if not path.parent.is_dir():
        raise UsageError(
            f"{what} {path}: there is no folder {path.parent}",
            hint=f"make it: mkdir -p {shlex.quote(str(path.parent))}",
        )
    _refuse_stream(f"{what} {path}", path)
    _refuse_unwritable(f"{what} {path}", path.parent)


def _refuse_stream(what: str, path: Path) -> None:
    """Refuse devices, pipes and the like: a file is put in the place of what has the name."""
    if not is_replaceable(path):
        raise UsageError(
            f"{what}: it is no regular file, and would be replaced",
            hint="name a file that is to be made; with --format a command prints what it says",
        )


def _refuse_unwritable(what: str, folder: Path) -> None:
    # Tried, as permissions do not tell of file systems that are read-only, or have no files.
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"{what} cannot be written: {folder}: {error.strerror}",
            hint="name another place: nothing was done yet",
        ) from error
