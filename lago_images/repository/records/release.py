"""A release: a build made public as a numbered revision, or a name withdrawn."""

from dataclasses import asdict, dataclass
from typing import ClassVar

from lago_images.repository.records.fields import Arch, Name
from lago_images.repository.records.layout import ReleaseKey
from lago_images.repository.records.manifest import canonical
from lago_images.repository.records.parsing import (
    LARGEST,
    Count,
    DocumentError,
    Text,
    from_plain,
    parse_json,
)

# What stands for the commit in what is made outside git.
NO_COMMIT = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One revision of one image.

    Attributes:
        build: The build made public; None withdraws the revision that ``withdraws`` names.
        withdraws: The revision a withdrawal takes away; None in a plain release.
        fingerprint: The build's; empty in a withdrawal.
        commit: What the publisher had checked out; ``NO_COMMIT`` outside git.
        published: Whole seconds since the epoch.
        reason: Why, for a withdrawal or a rollback; else empty.
        nonce: Tells the publisher's own write from another's when the answer was lost.
    """

    SCHEMA: ClassVar[int] = 1
    WHAT: ClassVar[str] = "a release"

    name: Name
    arch: Arch
    revision: Count
    build: Text | None
    fingerprint: Text
    commit: Text
    published: Count
    nonce: Text
    withdraws: Count | None = None
    reason: Text = ""

    @property
    def key(self) -> ReleaseKey:
        return ReleaseKey(name=self.name, arch=self.arch, revision=self.revision)

    def to_json(self) -> bytes:
        return canonical({"schema": self.SCHEMA, **asdict(self)})

    @classmethod
    def parse(cls, data: bytes, key: ReleaseKey) -> "Release":
        """Read the release ``key``.

        Raises ``RepositoryError`` with the release's path and all that is wrong: it is not JSON, of
        another schema, a field is not what it must be, or it is another release.
        """
        what = f"{key} is not {cls.WHAT}"
        return cls.from_plain(parse_json(data, what, largest=LARGEST), key)

    @classmethod
    def from_plain(cls, plain: object, key: ReleaseKey) -> "Release":
        """Make a release of what ``parse_json`` returned; raises as ``parse`` does."""
        release = from_plain(plain, cls, str(key))
        problems = [] if release.key == key else [f"it is release {release.key}"]
        if (release.build is None) == (release.withdraws is None):
            problems.append("it must either name a build or withdraw a revision")
        if problems:
            raise DocumentError(str(key), cls.WHAT, problems)
        return release
