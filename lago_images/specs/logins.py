"""Name the logins that a spec documents: the passwords and keys of ssh that its commands set."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lago_images.specs.model import Operation

_PLAIN = "password:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Logins:
    """How people log in to an image.

    Attributes:
        passwords: In plain text, by user.
        keys: The users who have a key of ssh.
    """

    passwords: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()


NONE = Logins()


@dataclass(frozen=True, slots=True, kw_only=True)
class Password:
    """A password that a command sets.

    Attributes:
        selector: Of virt-builder, such as ``password:TEXT``.
        is_public: Whether its text is published with the image: that of ``root-password`` is, for
            lago, and that of ``password`` is not.
    """

    selector: str
    is_public: bool

    @property
    def text(self) -> str | None:
        """Return the password; None where the spec does not say it, or in several lines."""
        is_plain = self.selector.startswith(_PLAIN) and "\n" not in self.selector
        return self.selector.removeprefix(_PLAIN) if is_plain else None

    @property
    def is_usable(self) -> bool:
        """Return whether somebody may know it and log in by it."""
        return self.selector.startswith((_PLAIN, "file:"))


def passwords(operations: Iterable[Operation]) -> dict[str, Password]:
    """Return by user what commands set: of several the last counts, in plain text or not."""
    found = {}
    for operation in operations:
        user, _, selector = operation.argument.partition(":")
        if operation.name == "root-password":
            found["root"] = Password(selector=operation.argument, is_public=True)
        elif operation.name == "password":
            found[user] = Password(selector=selector, is_public=False)
    return found


def key_users(operations: Iterable[Operation]) -> tuple[str, ...]:
    """Return the users who get a key of ssh."""
    given = (each.argument for each in operations if each.name == "ssh-inject")
    return tuple(dict.fromkeys(argument.partition(":")[0] for argument in given))


def documented(operations: tuple[Operation, ...]) -> Logins:
    """Return the logins that commands set and that can be tried."""
    texts = {user: password.text for user, password in passwords(operations).items()}
    return Logins(
        passwords={user: text for user, text in texts.items() if text is not None},
        keys=key_users(operations),
    )
