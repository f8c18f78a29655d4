"""Choose, of the builds in the repository, the one that is to become public as a planned image.

Nothing is judged here: ``judge`` compares what was chosen with the publisher's own checkout.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lago_images.building.model import Result
from lago_images.planning.model import Action, Plan, PlannedImage, ReasonKind
from lago_images.repository.publishing.copying import Judged
from lago_images.repository.records.layout import BuildKey
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.state import State, digest

_ASKED = {ReasonKind.FORCED, ReasonKind.STALE, ReasonKind.OUTDATED}


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOffers:
    """Hold what a choice is made from.

    Attributes:
        state: The repository, with what is staged in it.
        plan: What was planned.
        results: How the builds of this run ended, by name and architecture.
        forms: The forms beside the xz that a disk must be there in.
        is_promoting: Whether builds that other runs made may be released.
    """

    state: State
    plan: Plan
    results: Mapping[tuple[str, str], Result]
    forms: frozenset[str]
    is_promoting: bool

    def build_of(self, image: PlannedImage) -> Judged | None:
        """Return the build that is to become public as a planned image; None for none."""
        if image.action is Action.PROMOTE and image.promote:
            return self._promoted(image, image.promote)
        result = self.results.get((image.name, image.arch))
        if result is not None and result.manifest is not None:
            judged = self._reported(image, result.manifest)
            # A result is a file that somebody wrote: the build it names may be another run's.
            is_ours = judged is not None and (
                self.is_promoting or judged.manifest.created >= self.plan.made
            )
            return judged if is_ours else None
        # After a failure, a later attempt of this run may have built what it could not report.
        failed = result is not None
        asked = any(reason.kind in _ASKED for reason in image.reasons)
        # What such an entry asks for is a build that was made after it was asked.
        return self._newest(image, since=self.plan.made if asked or failed else 0)

    def _newest(self, image: PlannedImage, since: int) -> Judged | None:
        """Return the newest build of the image's fingerprint that was made since a time."""
        # Of builds that nobody released, this run's alone are to be released without promotion.
        manifests = list(self.state.unreleased(image.fingerprint)) if self.is_promoting else []
        current = self.state.current(image.name, image.arch)
        if current and current.manifest and current.revision > image.revision:
            # Another run was faster than this one.
            manifests.append(current.manifest)
        fitting = (
            Judged(manifest=manifest, sha256=digest(manifest))
            for manifest in manifests
            if (manifest.name, manifest.arch) == (image.name, image.arch)
            and manifest.fingerprint == image.fingerprint
            and manifest.created >= since
            and self.forms <= manifest.also.keys()
        )
        return next(fitting, None)

    def _promoted(self, image: PlannedImage, build_id: str) -> Judged | None:
        """Return the staged build that the plan promotes, by the digest that the plan has of it."""
        key = BuildKey(name=image.name, arch=image.arch, build_id=build_id)
        if not self._is_stored(key):
            return None
        history = self.state.history(key.name, key.arch)
        released = (release.manifest for release in history if release.build == build_id)
        manifest = self.state.staged.get(key) or next(released, None)
        if manifest is None or manifest.fingerprint != image.fingerprint:
            return None
        return Judged(manifest=manifest, sha256=image.promote_sha256 or digest(manifest))

    def _reported(self, image: PlannedImage, manifest: Manifest) -> Judged | None:
        """Return the build that a result reports, by the digest that what is staged must have."""
        key = BuildKey(name=image.name, arch=image.arch, build_id=manifest.build_id)
        is_other = manifest.key != key or manifest.fingerprint != image.fingerprint
        if is_other or not self._is_stored(key):
            return None
        return Judged(manifest=manifest, sha256=digest(manifest))

    def _is_stored(self, key: BuildKey) -> bool:
        """Return whether a build is staged, be it damaged, or was released already."""
        if key in self.state.released_builds or key in self.state.unreadable:
            return True
        return key in self.state.staged and key not in self.state.incomplete
