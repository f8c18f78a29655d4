"""Take from a repository's state what a plan needs of it."""

import hashlib
from dataclasses import replace

from lago_images.planning.history import Built, Current, Holdings, ImageHoldings
from lago_images.repository.records import gaps
from lago_images.repository.records.layout import ImageId
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.outline import ImageOutline, ManifestOutline
from lago_images.repository.records.release import ReleasedImage
from lago_images.repository.records.standing import (
    R,
    Recorded,
    deciding_commit,
    standing,
    taken_back,
)
from lago_images.repository.records.state import Offers


def holdings(state: Offers[R]) -> Holdings:
    """Return what the repository holds, by image."""
    waiting: dict[ImageId, list[Built]] = {}
    for manifest in state.unreleased():
        # A dirty build is of files that no commit has: no other checkout can ask for it.
        if not manifest.dirty:
            waiting.setdefault(manifest.key.image, []).append(_waiting(manifest))
    missing = gaps.by_image(state.missing)
    names = state.releases.keys() | waiting.keys()
    return Holdings(
        images={
            name: _published(state, name, waiting.get(name, []), missing.get(name, ""))
            for name in names
        },
        commit=state.published.commit if state.published else None,
    )


def _published(
    state: Offers[R], image: ImageId, waiting: list[Built], missing: str
) -> ImageHoldings:
    history = state.history(*image)
    # Not ``State.current``: a copy that gc retires stays the one that commits are compared with.
    offered = standing(history)
    return ImageHoldings(
        current=_current(state, offered[-1], history) if offered else None,
        newest=state.newest(*image),
        taken_back={
            mark: _why(_newest(history, mark, release))
            for mark, release in taken_back(history).items()
        },
        waiting=tuple(sorted(waiting, key=lambda built: (built.created, built.build))),
        missing=missing,
    )


def _current(state: Offers[R], release: R, history: tuple[R, ...]) -> Current:
    image = release.image
    return Current(
        revision=release.revision,
        fingerprint=release.fingerprint,
        commit=deciding_commit(release, history),
        build=release.build or "",
        built=_public(image) if image and state.is_whole(image.public) else None,
        made_of=image.manifest.commit if image else release.released.commit,
        dirty=image.manifest.dirty if image else release.released.dirty,
    )


def _public(image: ReleasedImage | ImageOutline) -> Built:
    # A publisher leaves out the forms that its checkout does not ask for.
    return replace(_built(image.manifest), also=frozenset(image.also))


def _built(manifest: Manifest | ManifestOutline) -> Built:
    return Built(
        build=manifest.build_id,
        fingerprint=manifest.fingerprint,
        commit=manifest.commit,
        created=manifest.created,
        base=manifest.base.digest,
        sha256=manifest.disk.sha256,
    )


def _waiting(manifest: Manifest) -> Built:
    digest = hashlib.sha256(manifest.to_json()).hexdigest()
    return replace(
        _built(manifest),
        manifest_sha256=digest,
        also=frozenset(manifest.also),
        failed=manifest.boot.failed if manifest.boot else frozenset(),
    )


def _newest(history: tuple[R, ...], fingerprint: str, taken: R) -> R:
    """Return the record that tells most of what was taken back: of the newest revision."""
    if taken.withdraws is None:
        return taken
    of_it = {each.revision for each in history if each.fingerprint == fingerprint}
    # One withdrawal takes every revision of a build, the newest first.
    records = [each for each in history if each.withdraws in of_it]
    return max(records, key=lambda each: each.withdraws or 0)


def _why(release: Recorded) -> str:
    if release.withdraws is not None:
        return f"revision {release.withdraws} was withdrawn{_because(release)}"
    # The reason of a rollback begins so itself.
    if release.reason.startswith("back to "):
        return f"revision {release.revision} went {release.reason}"
    return f"revision {release.revision} rolled it back{_because(release)}"


def _because(release: Recorded) -> str:
    return f": {release.reason}" if release.reason else ""
