"""Record how people log in to an image, as its spec and those that it stands on document it."""

from dataclasses import dataclass

from lago_images.repository.records.parsing import Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user whom a spec lets log in.

    Attributes:
        user: As the guest knows it.
        password: In plain text, where it is published for lago, too; else None.
        has_password: Whether there is one.
        has_key: Whether a key of ssh is there.
    """

    user: Text
    password: Text | None = None
    has_password: bool = False
    has_key: bool = False

    def __str__(self) -> str:
        """Return the user and the ways in."""
        ways = []
        if self.password is not None:
            ways.append(f"password {self.password}")
        elif self.has_password:
            ways.append("a password that is not published")
        if self.has_key:
            ways.append("an ssh key")
        return f"{self.user}: {', '.join(ways)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """All ways in that are documented.

    Attributes:
        logins: Sorted by user, root first.
        cloud_init: Whether a cloud can name users and their keys: ``cloud-init=yes``.
    """

    logins: tuple[Login, ...] = ()
    cloud_init: bool = False

    @property
    def texts(self) -> list[str]:
        """Return each in a few words, or that there is none."""
        texts = [str(login) for login in self.logins]
        if self.cloud_init:
            texts.append("the users and keys that a cloud names, by cloud-init")
        return texts or ["the spec sets no password and no key"]
