"""Answer what people ask of a repository, from its state: pure but for the lists beside disks."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from lago_images.errors import NotFoundError, RepositoryError, StorageError, UsageError
from lago_images.repository.browsing.documents import (
    Comparison,
    ImagePage,
    ImageState,
    Listing,
    Log,
    LogEntry,
    Revision,
    Side,
    main_revision,
)
from lago_images.repository.records import boot_files
from lago_images.repository.records.boot_files import BootFiles
from lago_images.repository.records.changes import (
    Package,
    compare,
    compare_known,
    parse_packages,
    versions_of,
)
from lago_images.repository.records.layout import (
    BOOT_FILES,
    MANIFEST,
    PACKAGES,
    SPEC,
    BuildKey,
    ImageId,
)
from lago_images.repository.records.log import events
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.parsing import LARGEST, parse_json
from lago_images.repository.records.release import Release, ReleasedImage
from lago_images.repository.records.standing import standing
from lago_images.repository.records.state import State
from lago_images.repository.rendering import client_setup
from lago_images.repository.rendering.commands import Commands, of_image
from lago_images.repository.rendering.families import Families
from lago_images.repository.rendering.lago import version_name
from lago_images.repository.rendering.relatives import bases_of, layers_of
from lago_images.repository.rendering.site import Site
from lago_images.repository.rendering.spec_text import command_changes
from lago_images.specs.choosing import did_you_mean, is_pattern, matching
from lago_images.storage.base import Store

_HINT = "lago-images repo list --state any shows every image"
# Of a list in a file: ten times what the largest distributions install.
_LARGEST = 32 << 20


def revisions(state: State, image: ImageId) -> tuple[Revision, ...]:
    """Return the revisions of an image that name a build, the newest first."""
    history = state.history(*image)
    live = {release.revision for release in state.live(*image)}
    taken = {each.withdraws: each.reason for each in history if each.withdraws is not None}
    damaged_up_to = max((k.revision for k in state.damaged if k.image == image), default=0)
    recorded, outdated = state.outdated.get(image, (None, None))
    every = []
    for release in reversed(history):
        if release.image is None:
            continue
        if release.revision in live:
            kind = ImageState.CURRENT if release.revision == max(live) else ImageState.OFFERED
        elif release.revision in taken:
            kind = ImageState.WITHDRAWN
        else:
            is_damaged = release.revision <= damaged_up_to
            kind = ImageState.DAMAGED if is_damaged else ImageState.RETIRED
        reason = taken.get(release.revision, release.reason)
        revision = _revision(release, release.image, kind, reason)
        if outdated and recorded and recorded.release == release.key:
            revision = replace(revision, recorded=outdated.upstream)
        every.append(revision)
    return tuple(every)


def _revision(release: Release, image: ReleasedImage, state: ImageState, reason: str) -> Revision:
    manifest, released = image.manifest, release.released
    return Revision(
        name=release.name,
        arch=release.arch,
        revision=release.revision,
        state=state,
        reason=reason,
        version=version_name(release, manifest),
        built=manifest.created,
        published=release.published,
        commit=release.commit,
        dirty=release.dirty,
        actor=released.actor,
        run=released.run,
        build=image.build,
        fingerprint=manifest.fingerprint,
        base=manifest.base,
        disk=manifest.disk,
        also=image.also,
        packages=manifest.packages,
        boot=manifest.boot,
        package_changes=release.package_changes,
        access=image.access,
        objects=image.objects,
        folder=image.public.folder,
    )


def listing(
    state: State,
    url: str,
    *,
    patterns: Sequence[str] = (),
    arch: str = "",
    states: Collection[ImageState] = (ImageState.CURRENT,),
    every: bool = False,
) -> Listing:
    """List images.

    Args:
        state: The repository's.
        url: The repository's, for the document.
        patterns: Of names, as shells have them; none for all.
        arch: Only images of it; empty for any.
        states: Of the revisions that are wanted.
        every: Every revision, the oldest first; else the newest of each image.
    """
    matching: list[Revision] = []
    for image in state.images:
        if arch not in ("", image.arch):
            continue
        if patterns and not any(fnmatchcase(image.name, pattern) for pattern in patterns):
            continue
        wanted = [each for each in revisions(state, image) if each.state in states]
        matching += reversed(wanted) if every else wanted[:1]
    return Listing(repository=url, images=tuple(matching))


def with_outdated(listed: Listing, state: State, store: Store) -> Listing:
    """Count the packages of each image that newer builds have in another version.

    Those of what is current for the same system: osinfo, else the distribution, and architecture.
    Reads the list of packages of each of these once.
    """
    wanted = {_system(release) for release in _current(state, listed)}
    every = [release for image in state.images if (release := state.current(*image))]
    every = [release for release in every if _system(release) in wanted]
    every.sort(key=lambda release: release.manifest.created if release.manifest else 0)
    packages = {release.key: _known_packages(store, release) for release in every}
    # A system may have a package in several versions, as Fedora has kernels.
    newest: dict[tuple[str, str], dict[tuple[str, str], frozenset[str]]] = {}
    for release in every:
        known = versions_of(packages[release.key] or ())
        newest.setdefault(_system(release), {}).update(known)
    counts: dict[tuple[str, str, int], int] = {}
    for release in every:
        if (own := packages[release.key]) is not None:
            latest = newest[_system(release)]
            behind = [p for p in own if p.version not in latest[p.name, p.arch]]
            counts[release.name, release.arch, release.revision] = len(behind)
    images = (
        replace(each, outdated=counts.get((each.name, each.arch, each.revision)))
        for each in listed.images
    )
    return replace(listed, images=tuple(images))


def _known_packages(store: Store, release: Release) -> tuple[Package, ...] | None:
    try:
        return packages_of(store, release)
    # Of one image: `repo verify` names what is wrong.
    except RepositoryError:
        return None


def _current(state: State, listed: Listing) -> Iterator[Release]:
    for each in listed.images:
        if release := state.current(each.name, each.arch):
            yield release


def _system(release: Release) -> tuple[str, str]:
    properties = release.manifest.properties if release.manifest else {}
    return properties.get("osinfo") or properties.get("distro", ""), release.arch


def image_of(state: State, name: str, arch: str = "") -> ImageId:
    """Return the image of a name.

    Raises:
        UsageError: It was never published, or for several architectures and none is named.
        RepositoryError: It was, and no record of it can be read.
    """
    named = [image for image in state.images if image.name == name]
    images = [image for image in named if arch in ("", image.arch)]
    if not images:
        refuse_damaged(state, name)
        hint = _HINT if named else did_you_mean(name, _names(state), _HINT)
        of_arch = f" for {arch}" if arch and named else ""
        raise UsageError(f"no image {name} was ever published{of_arch}", hint=hint)
    if len(images) > 1:
        shown = ", ".join(image.arch for image in images)
        raise UsageError(f"{name} is published for {shown}", hint="say which: --arch")
    return images[0]


def refuse_damaged(state: State, name: str) -> None:
    """Raise ``RepositoryError`` for an image of which records are there and none can be read."""
    damaged = [why for key, why in state.damaged.items() if key.name == name]
    if damaged and not any(image.name == name for image in state.images):
        raise RepositoryError(
            "; ".join(damaged), hint="restore it from a copy; lago-images repo verify names all"
        )


def refuse_unknown(state: State, patterns: Sequence[str]) -> None:
    """Raise ``UsageError`` for the names, that are no patterns, of images never published."""
    names = _names(state)
    unknown = [each for each in patterns if not (is_pattern(each) or each in names)]
    if unknown:
        hints = [did_you_mean(each, names) for each in unknown]
        raise UsageError(
            "; ".join(f"no image {each} was ever published" for each in unknown),
            hint="; ".join(dict.fromkeys(filter(None, hints))) or _HINT,
        )


def unmatched(state: State, patterns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the patterns that match no image that was ever published, each with a hint."""
    names = _names(state)
    for pattern in patterns:
        if not matching(pattern, names):
            yield pattern, did_you_mean(pattern, names, _HINT)


def why_nothing(state: State, patterns: Sequence[str], arch: str) -> str:
    """Return why a list of images that are there is empty; empty where patterns match none."""
    names = _names(state)
    chosen = {name for each in patterns for name in matching(each, names)} if patterns else names
    images = [image for image in state.images if image.name in chosen]
    if not images:
        return ""
    if arch and arch not in (known := {image.arch for image in images}):
        return f"nothing here is for {arch}, only for {', '.join(sorted(known))}"
    return f"no revision has the state that was asked for; {_HINT}"


def _names(state: State) -> frozenset[str]:
    """Return the names that were ever published, also those whose records cannot be read."""
    return frozenset({image.name for image in state.images} | {key.name for key in state.damaged})


def page(store: Store, state: State, image: ImageId) -> ImagePage:
    """Return all that is known of an image, with the commands for clients."""
    every = revisions(state, image)
    main = main_revision(every)
    shown = release_of(state, image, main.revision) if main else None
    base_url = ""
    use: tuple[Commands, ...] = ()
    try:
        view = client_setup.read(store)
    except (RepositoryError, StorageError):
        # Nothing is rendered yet, or what is rendered is damaged: repo verify's business.
        view = None
    if view and len(view.bases) == 1:
        base_url = view.bases[0].rstrip("/")
        if main and main.state is ImageState.CURRENT and shown and shown.image:
            site = Site(name=view.name, base_url=base_url)
            use = tuple(of_image(shown, shown.image, site, view.key))
    return ImagePage(
        repository=store.url,
        base_url=base_url,
        name=image.name,
        arch=image.arch,
        properties=dict(shown.manifest.properties) if shown and shown.manifest else {},
        revisions=every,
        bases=tuple(bases_of(state, shown.image)) if shown and shown.image else (),
        layers=tuple(layers_of(state, image, Families.of(state))),
        use=use,
    )


def log(state: State, url: str, images: Iterable[ImageId], *, most: int | None = None) -> Log:
    """Return what happened to images, the newest event first, at most ``most`` of them."""
    entries = [
        LogEntry(
            name=event.record.name,
            arch=event.record.arch,
            kind=event.kind,
            revision=event.record.revision,
            about=event.about,
            published=event.record.published,
            actor=event.record.released.actor,
            commit=event.record.commit,
            dirty=event.record.dirty,
            run=event.record.released.run,
            reason=event.record.reason,
        )
        for image in images
        for event in events(state.history(*image))
    ]
    # Of events in one second, which a withdrawal of several revisions makes, the later record.
    entries.sort(key=lambda entry: (-entry.published, entry.name, entry.arch, -entry.revision))
    return Log(repository=url, events=tuple(entries[:most]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A build to compare: manifest, packages, boot files and spec, as far as they are known."""

    source: str
    manifest: Manifest | None
    packages: tuple[Package, ...] | None
    boot_files: BootFiles | None = None
    spec: str | None = None
    revision: int | None = None

    @property
    def side(self) -> Side:
        manifest = self.manifest
        if manifest is None:
            return Side(source=self.source)
        return Side(
            source=self.source,
            revision=self.revision,
            build=manifest.build_id,
            commit=manifest.commit,
            built=manifest.created,
            size=manifest.disk.compressed_size,
            virtual_size=manifest.disk.virtual_size,
            base=manifest.base,
        )


def two_newest(state: State, image: ImageId) -> tuple[int | None, int]:
    """Return the newest standing revision of an image, and the one before it of another build.

    Raises ``UsageError`` when nothing of the image stands.
    """
    stands = standing(state.history(*image))
    if not stands:
        raise UsageError(f"every revision of {image.name} is withdrawn", hint="name two revisions")
    # After a rollback the newest has the build of an older one, and both may stand.
    before = [each for each in stands if each.public != stands[-1].public]
    return (before[-1].revision if before else None), stands[-1].revision


def release_of(state: State, image: ImageId, revision: int) -> Release:
    """Return the release of a revision, withdrawn ones included.

    Raises ``UsageError`` when there is no such revision, or it is a withdrawal itself.
    """
    release = next((r for r in state.history(*image) if r.revision == revision), None)
    if release is None or release.image is None:
        reason = "is a withdrawal and has no build" if release else "does not exist"
        raise UsageError(
            f"revision {revision} of {image} {reason}", hint=f"lago-images repo log {image.name}"
        )
    return release


def released_build(store: Store, state: State, image: ImageId, revision: int) -> Build:
    """Read the build of a revision, withdrawn ones included.

    Raises:
        UsageError: There is no such revision, or it is a withdrawal.
        RepositoryError: Its list of packages or of boot files, or the text of its spec, is not the
            one that was released.
    """
    release = release_of(state, image, revision)
    return Build(
        source=f"revision {revision}",
        manifest=release.manifest,
        packages=packages_of(store, release),
        boot_files=_boot_files_of(store, release),
        spec=_released_list(store, release, SPEC),
        revision=revision,
    )


def packages_of(store: Store, release: Release) -> tuple[Package, ...] | None:
    """Read the packages of a release; None where they are not known or are removed.

    Raises ``RepositoryError`` when the list is not the one that was released.
    """
    text = _released_list(store, release, PACKAGES)
    return None if text is None else parse_packages(text)


def _boot_files_of(store: Store, release: Release) -> BootFiles | None:
    text = _released_list(store, release, BOOT_FILES)
    return None if text is None else boot_files.parse(text)


def _released_list(store: Store, release: Release, name: str) -> str | None:
    """Read a text that lies beside the disk of a release; None where there is none, or no more."""
    image = release.image
    digest = image.objects.get(name) if image else None
    if image is None or digest is None:
        return None
    key = image.public.folder + name
    try:
        data = store.get(key).data
    except NotFoundError:
        # repo gc removed the public copy; the release stays.
        return None
    if hashlib.sha256(data).hexdigest() != digest.sha256:
        raise RepositoryError(
            f"{key} is not what was released",
            hint="lago-images repo verify says what else is wrong",
        )
    return data.decode(errors="replace")


def local_build(path: Path) -> Build:
    """Read a build in a folder, with ``manifest.json`` and the lists, or a ``packages.txt`` alone.

    Raises:
        UsageError: There is neither.
        RepositoryError: The manifest is not one.
    """
    if not path.is_dir():
        return Build(source=str(path), manifest=None, packages=_packages(path))
    if not (path / MANIFEST).is_file():
        raise UsageError(
            f"{path} has no {MANIFEST}, so it is not the folder of a build",
            hint="name a folder below builds/ or images/ of a repository, or a packages.txt",
        )
    packages_file, boot_file, spec_file = path / PACKAGES, path / BOOT_FILES, path / SPEC
    return Build(
        source=str(path),
        manifest=_manifest(path / MANIFEST),
        packages=_packages(packages_file) if packages_file.is_file() else None,
        boot_files=boot_files.parse(_text(boot_file)) if boot_file.is_file() else None,
        # Of a public copy alone: the publisher puts it there.
        spec=_text(spec_file) if spec_file.is_file() else None,
    )


def _manifest(path: Path) -> Manifest:
    if path.stat().st_size > LARGEST:
        raise RepositoryError(f"{path} is not {Manifest.WHAT}: it is too large")
    plain = parse_json(path.read_bytes(), f"{path} is not {Manifest.WHAT}")
    keys = ("name", "arch", "build_id")
    if not isinstance(plain, dict) or not all(isinstance(plain.get(key), str) for key in keys):
        raise RepositoryError(f"{path} is not {Manifest.WHAT}: it names no build")
    # Which build it should be of only the folder could say, which people may have renamed.
    return Manifest.from_plain(plain, BuildKey(**{key: plain[key] for key in keys}))


def _packages(path: Path) -> tuple[Package, ...]:
    text = _text(path)
    packages = parse_packages(text)
    if text.strip() and not packages:
        raise UsageError(
            f"{path} is not a list of packages: it has no line such as 'bash 5.2.15-2 amd64'",
            hint="dpkg-query -W -f '${Package} ${Version} ${Architecture}\\n' makes one",
        )
    return packages


def _text(path: Path) -> str:
    if path.stat().st_size > _LARGEST:
        raise UsageError(f"{path} is too large to be a list of packages or boot files, or a spec")
    return path.read_bytes().decode(errors="replace")


def difference(image: ImageId, old: Build, new: Build) -> Comparison:
    """Compare two builds, as far as both are known."""
    properties, is_other_base, commands = None, None, None
    if old.manifest and new.manifest:
        changes = compare(old.manifest, new.manifest)
        properties, is_other_base = changes.properties, changes.bases is not None
    if old.spec is not None and new.spec is not None:
        commands = command_changes(old.spec, new.spec)
    return Comparison(
        name=image.name,
        arch=image.arch,
        old=old.side,
        new=new.side,
        packages=compare_known(old.packages, new.packages),
        boot_files=boot_files.compare(old.boot_files, new.boot_files),
        properties=properties,
        commands=commands,
        is_other_base=is_other_base,
    )
