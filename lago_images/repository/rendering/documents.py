"""``images.json`` and ``latest/``: what is offered, for scripts.

Their schemas are in ``docs/schemas``: a field may be added, and none changes its meaning.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import msgspec

from lago_images.repository.records import layout
from lago_images.repository.records.changes import PackageLines
from lago_images.repository.records.fields import aliases, line
from lago_images.repository.records.manifest import BootTest, Manifest, canonical
from lago_images.repository.records.outdated import Outdated
from lago_images.repository.records.release import ReleasedImage
from lago_images.repository.records.state import State
from lago_images.repository.rendering.index import listing_mark
from lago_images.repository.rendering.lago import version_name
from lago_images.repository.rendering.site import Site
from lago_images.repository.rendering.views import (
    Offer,
    Shown,
    ShownImage,
    ShownRecord,
    Status,
    moment,
    with_records,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedDisk:
    """The disk as it is downloaded; ``size`` in bytes."""

    url: str
    size: int
    sha256: str
    sha512: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainDisk:
    """The disk after ``xz --decompress``; sizes in bytes, ``virtual_size`` as a guest sees it.

    ``sha256`` is null for builds from before it was recorded.
    """

    format: str
    size: int
    virtual_size: int
    sha1: str
    sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsableDisk:
    """The disk in a form that is used as it is downloaded; ``size`` in bytes."""

    url: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicUpstream:
    """What a build of the revision's spec would get from outside that the revision has otherwise.

    Attributes:
        found: When that was found, in UTC: whoever asked since found the same.
        since: When something was found first, without a moment since at which nothing was; null
            where a build would get nothing else any more.
        base: What its base is by now; empty where that is the same, or not known.
        packages: Null where they are not known.
        record: The URL of the record of this.
    """

    found: str
    since: str | None
    base: str
    packages: PackageLines | None
    record: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One revision that is offered.

    Attributes:
        status: ``current`` or ``offered``.
        version: As lago names it.
        published: When it was released, in UTC.
        built: When it was built, in UTC.
        commit: Of the specs, as it was built.
        base: What it was built on, as the spec says it.
        boot: The boot test; null for none.
        packages: How many are installed; null where they were not counted.
        disk: The compressed disk.
        plain: The same, decompressed.
        also: The disk in other forms, such as ``qcow2``; empty where it is published as xz alone.
        files: The URLs of what is known of it: ``manifest`` always, and of ``packages``, ``boot``,
            ``spec``, ``sbom``, ``statement``, ``console`` and ``log`` what there is.
        upstream: Of the current revision, what is recorded that a build would get otherwise;
            null where nothing ever was.
    """

    revision: int
    status: Status
    version: str
    published: str
    built: str
    commit: str
    base: str
    boot: BootTest | None
    packages: int | None
    disk: CompressedDisk
    plain: PlainDisk
    also: Mapping[str, UsableDisk]
    files: Mapping[str, str]
    upstream: PublicUpstream | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """A revision that was taken back, and why."""

    revision: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image of one architecture.

    Attributes:
        title: A line for people; empty for none.
        hidden: Whether lists for people leave it out.
        offer: Whether clients get it, and whether what they get is the newest.
        reason: Why they get something older, or nothing; else empty.
        page: The URL of its page.
        latest: The URL of the document about its newest revision alone.
        properties: The spec's.
        revisions: What is offered, the newest first.
        withdrawn: What was taken back, the newest first.
    """

    name: str
    arch: str
    title: str
    aliases: tuple[str, ...]
    hidden: bool
    offer: Offer
    reason: str
    page: str
    latest: str
    properties: Mapping[str, str]
    revisions: tuple[Revision, ...]
    withdrawn: tuple[Withdrawn, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """All images of a repository.

    Attributes:
        releases: A mark of the releases, and of the records of what is outdated in them: where it
            is the same, so are these.
    """

    SCHEMA: ClassVar[int] = 1

    name: str
    base_url: str
    releases: str
    images: tuple[Image, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """The newest revision of an image; ``revision`` is null while none is offered.

    Attributes:
        releases: A mark of the image's releases, and of the records of what is outdated in them:
            where it is the same, so are these.
    """

    SCHEMA: ClassVar[int] = 1

    name: str
    arch: str
    offer: Offer
    reason: str
    page: str
    releases: str
    revision: Revision | None


def images_json(shown: Shown, site: Site) -> bytes:
    """Render ``images.json``, an image a line."""
    # By hand: with an indentation 10,000 revisions are twice as long.
    lines = [msgspec.json.encode(_image(image, site), enc_hook=dict) for image in shown.images]
    head = {"schema": Images.SCHEMA, "name": line(site.name), "base_url": site.base_url}
    head["releases"] = shown.full_mark
    opened = msgspec.json.encode(head).removesuffix(b"}")
    return opened + b',"images":[\n' + b",\n".join(lines) + b"\n]}\n"


def latest_documents(shown: Shown, site: Site) -> dict[str, bytes]:
    """Render the document of each image about its newest revision, by key."""
    return {layout.latest(each.image): _latest(each, shown.state, site) for each in shown.images}


def _latest(shown: ShownImage, state: State, site: Site) -> bytes:
    document = Latest(
        name=shown.image.name,
        arch=shown.image.arch,
        offer=shown.offer,
        reason=line(shown.reason),
        page=f"{site.base_url}/{layout.page(shown.image.name)}",
        releases=with_records(listing_mark(state, shown.image), state, [shown.image]),
        revision=next(_revisions(shown, site), None),
    )
    return canonical({"schema": Latest.SCHEMA, **msgspec.to_builtins(document, enc_hook=dict)})


def _image(shown: ShownImage, site: Site) -> Image:
    name, properties = shown.image.name, shown.built.manifest.properties
    return Image(
        name=name,
        arch=shown.image.arch,
        title=line(properties.get("name", "")),
        aliases=tuple(aliases(line(properties.get("aliases", "")))),
        hidden=shown.is_hidden,
        offer=shown.offer,
        reason=line(shown.reason),
        page=f"{site.base_url}/{layout.page(name)}",
        latest=f"{site.base_url}/{layout.latest(shown.image)}",
        properties={line(key): line(text) for key, text in properties.items()},
        revisions=tuple(_revisions(shown, site)),
        withdrawn=tuple(
            Withdrawn(revision=each.release.revision, reason=line(each.withdrawal.reason))
            for each in shown.records
            if each.withdrawal
        ),
    )


def _revisions(shown: ShownImage, site: Site) -> Iterator[Revision]:
    for record in shown.records:
        if record.is_offered and record.image:
            outdated = shown.outdated if record is shown.newest else None
            yield _revision(record, record.image, site, outdated)


def _revision(
    record: ShownRecord, image: ReleasedImage, site: Site, outdated: Outdated | None
) -> Revision:
    manifest, disk, release = image.manifest, image.manifest.disk, record.release
    return Revision(
        revision=release.revision,
        status=record.status or Status.OFFERED,
        version=version_name(release, manifest),
        published=moment(release.published),
        built=moment(manifest.created),
        commit=line(manifest.commit),
        base=line(manifest.base.ref),
        boot=_boot(manifest),
        packages=manifest.packages,
        disk=CompressedDisk(
            url=f"{site.base_url}/{image.public.disk}",
            size=disk.compressed_size,
            sha256=disk.sha256,
            sha512=disk.sha512,
        ),
        plain=PlainDisk(
            format=disk.format,
            size=disk.size,
            virtual_size=disk.virtual_size,
            sha1=disk.sha1,
            sha256=disk.plain_sha256,
        ),
        also={
            form: UsableDisk(
                url=f"{site.base_url}/{image.public.also(form)}", size=file.size, sha256=file.sha256
            )
            for form, file in sorted(image.also.items())
        },
        files={name: f"{site.base_url}/{key}" for name, key in known_files(image).items()},
        upstream=_upstream(outdated, site) if outdated else None,
    )


def _upstream(outdated: Outdated, site: Site) -> PublicUpstream:
    found, packages = outdated.upstream, outdated.upstream.packages
    if packages is not None:
        added, removed, upgraded = (
            tuple(map(line, some)) for some in (packages.added, packages.removed, packages.upgraded)
        )
        packages = replace(packages, added=added, removed=removed, upgraded=upgraded)
    return PublicUpstream(
        found=moment(found.found),
        since=None if found.since is None else moment(found.since),
        base=line(found.base),
        packages=packages,
        record=f"{site.base_url}/{outdated.key}",
    )


def _boot(manifest: Manifest) -> BootTest | None:
    boot = manifest.boot
    if boot is None:
        return None
    firmware = {line(name): seconds for name, seconds in boot.firmware.items()}
    checks = tuple(map(line, boot.checks))
    # What a test printed is in the manifest; here, as little as tells whether to take the image.
    tests = tuple(replace(each, name=line(each.name), output="") for each in boot.tests)
    return replace(boot, accel=line(boot.accel), firmware=firmware, checks=checks, tests=tests)


def known_files(image: ReleasedImage) -> dict[str, str]:
    """Return the keys of what is known of a public copy beside its disk, by what they hold."""
    public = image.public
    keys = {
        "manifest": public.manifest,
        "packages": public.packages,
        "boot": public.boot_files,
        "spec": public.spec,
        "sbom": public.sbom,
        "statement": public.provenance,
        "console": public.console,
        "log": public.log,
    }
    return {
        name: key for name, key in keys.items() if key.removeprefix(public.folder) in image.objects
    }
