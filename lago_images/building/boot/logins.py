"""Name the logins that a spec documents: the passwords and ssh keys that its commands set."""

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


def documented(operations: Iterable[Operation]) -> Logins:
    """Return the logins that commands set.

    Of several passwords of one user the last counts, in plain text or not.
    """
    selectors: dict[str, str] = {}
    keys: dict[str, None] = {}
    for operation in operations:
        user, _, selector = operation.argument.partition(":")
        if operation.name == "root-password":
            selectors["root"] = operation.argument
        elif operation.name == "password":
            selectors[user] = selector
        elif operation.name == "ssh-inject":
            keys[user] = None
    passwords = {
        user: selector.removeprefix(_PLAIN)
        for user, selector in selectors.items()
        if selector.startswith(_PLAIN) and "\n" not in selector
    }
    return Logins(passwords=passwords, keys=tuple(keys))
