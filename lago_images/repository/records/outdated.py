"""Record what a build of a revision's spec would get from outside that the revision has otherwise.

The records of a revision are numbered and written once. The newest one counts: a new one is made
only where something else is found than it says, be that nothing any more.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from lago_images.console import first_of
from lago_images.repository.records.changes import LONGEST, PackageLines, Upstream
from lago_images.repository.records.fields import Arch, BuildId, Name, line
from lago_images.repository.records.layout import (
    ImageId,
    OutdatedKey,
    ReleaseKey,
    outdated_key,
)
from lago_images.repository.records.manifest import canonical
from lago_images.repository.records.parsing import (
    LARGEST,
    Count,
    DocumentError,
    Positive,
    Text,
    from_plain,
    parse_json,
)
from lago_images.repository.records.release import Release

# Of each kind of change: `images.json` has them for every image.
_MOST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundUpstream:
    """Tell what was found outside that a revision has otherwise.

    Attributes:
        found: When, in whole seconds since the epoch.
        since: When something else was found first, without a moment since at which nothing was;
            None where nothing is.
        base: What its base is by now; empty where that is the same, or not known.
        packages: None where they are not known.
    """

    found: Count
    since: Count | None
    base: Text = ""
    packages: PackageLines | None = None

    @classmethod
    def of(
        cls, upstream: Upstream, now: float, before: "FoundUpstream | None"
    ) -> "FoundUpstream | None":
        """Return what is to be recorded of what was found now; None where that is not news.

        ``before`` is what was recorded last; None for nothing. What is not known is no news.
        """
        if upstream.unknown and not upstream.is_outdated:
            return None
        packages = upstream.packages
        found = cls(
            found=int(now),
            since=(before and before.since) or int(now) if upstream.is_outdated else None,
            base=line(upstream.base)[:LONGEST],
            packages=None if packages is None else packages.lines().first(_MOST),
        )
        is_same = found._is_as(before) if before else not upstream.is_outdated
        return None if is_same else found

    def _is_as(self, other: "FoundUpstream") -> bool:
        mine, its = ((o.base, o.packages or PackageLines()) for o in (self, other))
        return mine == its

    @property
    def is_outdated(self) -> bool:
        return self.count > 0

    @property
    def texts(self) -> list[str]:
        """Return each thing that was found as people read it."""
        packages = self.packages.texts if self.packages else ()
        return [*([self.base] if self.base else ()), *packages]

    @property
    def count(self) -> int:
        """Return how many changes there are, those that are not recorded one by one too."""
        return bool(self.base) + (self.packages.count if self.packages else 0)

    def summary(self, most: int) -> str:
        """Return the first changes, and how many more there are."""
        return first_of(self.texts, most, self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outdated:
    """The record of what a build of a revision would get anew from outside.

    Attributes:
        revision: That was current when this was found.
        number: Of this record among those of the revision; the highest counts.
        build: The revision's.
        upstream: What was found.
    """

    SCHEMA: ClassVar[int] = 1
    WHAT: ClassVar[str] = "a record of what is outdated"

    name: Name
    arch: Arch
    revision: Positive
    number: Positive
    build: BuildId
    upstream: FoundUpstream

    @property
    def key(self) -> OutdatedKey:
        return OutdatedKey(
            name=self.name, arch=self.arch, revision=self.revision, number=self.number
        )

    def to_json(self) -> bytes:
        return canonical({"schema": self.SCHEMA, **msgspec.to_builtins(self)})

    @classmethod
    def parse(cls, data: bytes, key: OutdatedKey) -> "Outdated":
        """Read the record ``key``; raises ``RepositoryError`` with all that is wrong with it."""
        return cls.from_plain(parse_json(data, f"{key} is not {cls.WHAT}", largest=LARGEST), key)

    @classmethod
    def from_plain(cls, plain: object, key: OutdatedKey) -> "Outdated":
        """Make a record of what ``parse_json`` returned; raises as ``parse`` does."""
        record = from_plain(plain, cls, str(key))
        problems = [] if record.key == key else [f"it is the record {record.key}"]
        if record.upstream.is_outdated != (record.upstream.since is not None):
            problems.append("it must have both a change and since when there is one, or neither")
        if problems:
            raise DocumentError(str(key), cls.WHAT, problems)
        return record


# Its key, and None in place of one that cannot be read or is about another build.
NewestRecord = tuple[OutdatedKey, Outdated | None]


def newest_records(
    names: Iterable[str], current: Callable[[str, str], Release | None]
) -> dict[OutdatedKey, Release]:
    """Find, of the keys in a repository, that of the newest record about each current release."""
    newest: dict[ReleaseKey, OutdatedKey] = {}
    for name in names:
        if key := outdated_key(name):
            newest[key.release] = max(key, newest.get(key.release, key))
    releases = ((key, current(key.name, key.arch)) for key in newest.values())
    return {key: found for key, found in releases if found and found.key == key.release}


def by_image(
    newest: Mapping[OutdatedKey, Release], records: Mapping[OutdatedKey, Outdated]
) -> dict[ImageId, NewestRecord]:
    """Return the record of each image that counts, of those that ``newest_records`` found."""
    return {
        release.key.image: (key, about(release, records.get(key)))
        for key, release in newest.items()
    }


def about(release: Release, record: Outdated | None) -> Outdated | None:
    """Return a record if it is about the build of a release."""
    return record if record and record.build == release.build else None
