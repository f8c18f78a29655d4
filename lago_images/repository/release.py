"""A release: a build made public as a numbered revision, or a name withdrawn."""

from dataclasses import asdict, dataclass
from typing import Any

from lago_images.errors import RepositoryError
from lago_images.repository.layout import ReleaseKey
from lago_images.repository.manifest import canonical, refuse_newer
from lago_images.repository.parsing import parse_json

SCHEMA = 1
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

    name: str
    arch: str
    revision: int
    build: str | None
    fingerprint: str
    commit: str
    published: int
    nonce: str
    withdraws: int | None = None
    reason: str = ""

    @property
    def key(self) -> ReleaseKey:
        return ReleaseKey(name=self.name, arch=self.arch, revision=self.revision)

    def to_json(self) -> bytes:
        return canonical({"schema": SCHEMA, **asdict(self)})

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "Release":
        """Raises ``RepositoryError`` naming ``where`` when it is not a release we know."""
        return cls.from_plain(parse_json(data, f"{where} is not a release"), where)

    @classmethod
    def from_plain(cls, plain: dict[str, Any], where: str) -> "Release":
        """From what ``json.loads`` makes of a release; raises as ``from_json`` does."""
        try:
            refuse_newer(plain, SCHEMA, where)
            known = {**plain}
            del known["schema"]
            return cls(**known)
        except (TypeError, KeyError, AttributeError) as error:
            raise RepositoryError(f"{where} is not a release: {error}") from error
