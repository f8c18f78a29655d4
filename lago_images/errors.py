"""The failures a user can meet, each with its exit code.

The library raises; only ``cli`` prints and exits. 1: the work failed. 2: wrong usage, spec or
settings. A message says what was being done and what went wrong; the hint says what to do next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lago_images.secret_text import without_keys

# An installed package has no documents beside it: messages link to these.
MANUAL = "https://github.com/lago-project/lago-images/blob/main/docs"


class Error(Exception):
    """A failure that is shown to the user without a traceback, and without any key it quotes."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = without_keys(message)
        self.hint = hint and without_keys(hint)
        super().__init__(self.message)


class UsageError(Error):
    """The command was called in a way that cannot work, such as with an unknown name."""

    exit_code = 2


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong with something a user wrote.

    ``line`` counts from 1; None when the whole file is meant.
    """

    path: str
    line: int | None
    what: str

    def __post_init__(self) -> None:
        # Files quote what they like, and a key may lie among them.
        object.__setattr__(self, "what", without_keys(self.what))

    def __str__(self) -> str:
        where = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{where}: {self.what}"


class ProblemsError(UsageError):
    """Something in a file is wrong; all problems of all files are told at once."""

    def __init__(self, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        self.problems = tuple(sorted(set(problems), key=lambda p: (p.path, p.line or 0, p.what)))
        super().__init__("\n".join(str(problem) for problem in self.problems), hint=hint)


class SpecError(ProblemsError):
    """Specs are wrong; all their problems are told at once."""


class SettingsError(ProblemsError):
    """Settings are wrong; all their problems are told at once."""


class GitError(Error):
    """Git could not answer."""


class CommandError(Error):
    """A program ended with a failure.

    ``tail`` holds its last lines of output, ``log`` the file with all of them.
    """

    def __init__(
        self,
        message: str,
        *,
        argv: Sequence[str],
        returncode: int,
        tail: Sequence[str] = (),
        log: Path | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.argv = tuple(argv)
        self.returncode = returncode
        self.tail = tuple(tail)
        self.log = log

    @property
    def last_words(self) -> str:
        """Return the program's last line of output, else the message."""
        return self.tail[-1] if self.tail else self.message


class ToolMissingError(Error):
    """A program this work needs is not installed."""


class HostError(Error):
    """This machine cannot do the work: no KVM, too little disk space."""


class BuildError(Error):
    """An image could not be built.

    ``tail`` holds the last lines of what failed, if known.
    """

    def __init__(self, message: str, *, tail: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.tail = tuple(tail)


class BootError(BuildError):
    """An image was built and does not pass its boot test.

    ``tail`` holds the console's last lines.
    """


class StorageError(Error):
    """The store failed in a way that says nothing about its objects."""


class NotFoundError(StorageError):
    """An object is missing: the store answered 404, and nothing weaker counts."""


class UnreadableError(StorageError):
    """An object exists, and the store refuses to give its bytes: archived, encrypted, a policy."""


class ConflictError(StorageError):
    """A conditional write lost: the object exists already, or has changed since it was read."""


class TamperedError(StorageError):
    """An object does not have the bytes that were judged; none of them became public."""


class UnsafeStoreError(StorageError):
    """The store does not support conditional writes."""


class KeylessError(StorageError):
    """The store refuses this without credentials."""


class RepositoryError(Error):
    """The repository's content is not what it must be."""


class SigningError(Error):
    """The index cannot be signed as asked."""
