"""Name the logins that a spec documents: the passwords and keys of ssh that its commands set."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lago_images.specs.model import Operation, Spec

_PLAIN = "password:"
_ROOT = "root"
_PROPERTY = "root-password"
_KEY_TYPES = ("ssh-", "ecdsa-", "sk-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Logins:
    """How people log in to an image.

    Attributes:
        passwords: In plain text, by user.
        keys: By user, the keys of ssh that they have: the part in base64.
    """

    passwords: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


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
            found[_ROOT] = Password(selector=operation.argument, is_public=True)
        elif operation.name == "password":
            found[user] = Password(selector=selector, is_public=False)
    return found


def passwords_along(chain: Iterable[Spec]) -> dict[str, Password]:
    """Return by user the passwords of an image: of specs, each standing on the one before.

    The property that lago gets is what people are told of root, whatever the commands are.
    """
    found: dict[str, Password] = {}
    for spec in chain:
        found |= passwords(spec.operations)
        if _PROPERTY in spec.properties:
            selector = f"{_PLAIN}{spec.properties[_PROPERTY]}"
            found[_ROOT] = Password(selector=selector, is_public=True)
    return found


def key_users(operations: Iterable[Operation]) -> tuple[str, ...]:
    """Return the users who get a key of ssh."""
    given = (each.argument for each in operations if each.name == "ssh-inject")
    return tuple(dict.fromkeys(argument.partition(":")[0] for argument in given))


def documented(chain: Sequence[Spec], read: Callable[[str], str]) -> Logins:
    """Return the logins to an image that people are told of and that can be tried.

    Args:
        chain: Its spec, last, and what that stands on.
        read: Returns the content of a host file that a command names.
    """
    texts = {user: password.text for user, password in passwords_along(chain).items()}
    return Logins(
        passwords={user: text for user, text in texts.items() if text is not None},
        keys=_keys([each for spec in chain for each in spec.operations], read),
    )


def _keys(
    operations: Iterable[Operation], read: Callable[[str], str]
) -> dict[str, tuple[str, ...]]:
    keys: dict[str, tuple[str, ...]] = {}
    for operation in operations:
        if operation.name == "ssh-inject":
            user, _, selector = operation.argument.partition(":")
            kind, _, given = selector.partition(":")
            text = read(given) if kind == "file" else given
            keys[user] = (*keys.get(user, ()), *_blobs(text))
    return keys


def _blobs(text: str) -> Iterator[str]:
    """Yield the keys in an ``authorized_keys``: sshd(8), AUTHORIZED_KEYS FILE FORMAT."""
    for line in text.splitlines():
        words = line.split()
        # Options may stand before the type.
        types = [n for n, word in enumerate(words[:-1]) if word.startswith(_KEY_TYPES)]
        if types and not words[0].startswith("#"):
            yield words[types[0] + 1]
