"""What a report needs of the plan, the results and the repository, put together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lago_images.building import packages
from lago_images.building.bases.prepared import Package
from lago_images.building.model import Result
from lago_images.ci.report.markdown import Entry
from lago_images.errors import NotFoundError
from lago_images.jobs.results import Fate
from lago_images.planning.model import WORK, Action, Plan, PlannedImage
from lago_images.repository.records.layout import IMAGES, BuildFolder, BuildKey, ImageId
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.state import State, standing
from lago_images.storage.base import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where builds are read: the repository, and what clients know it as.

    ``base_url`` is empty when that is not known; ``run`` is the URL of the CI run, or empty.
    ``aside`` is the folder where builds were kept that may not be uploaded. ``fates`` says by name
    how the publication of this run ended; None where there was none.
    """

    store: Store
    state: State
    base_url: str = ""
    run: str = ""
    aside: Path | None = None
    fates: Mapping[str, Fate] | None = None


def entries(plan: Plan, results: Iterable[Result], source: Source) -> list[Entry]:
    """An entry for each image that the plan builds or promotes, in the plan's order."""
    by_name = {ImageId(result.name, result.arch): result for result in results}
    return [_entry(planned, by_name, source) for planned in plan.images if planned.action in WORK]


def _entry(planned: PlannedImage, results: Mapping[ImageId, Result], source: Source) -> Entry:
    result = results.get(ImageId(planned.name, planned.arch))
    before, after = _published(planned, source.state), _built(planned, result, source.state)
    return Entry(
        planned=planned,
        result=result,
        before=before,
        after=after,
        changes=_changes(before, after, source),
        log=_log(after, source),
        fate=(source.fates or {}).get(planned.name),
    )


def _published(planned: PlannedImage, state: State) -> Manifest | None:
    """The build that was public when the plan was made, whatever was released since."""
    history = state.history(planned.name, planned.arch)
    # The newest revision may be a withdrawal: an older release is what clients have then.
    then = standing(tuple(r for r in history if r.revision <= planned.revision))
    return then[-1].manifest if then else None


def _built(planned: PlannedImage, result: Result | None, state: State) -> Manifest | None:
    if planned.action is Action.PROMOTE and planned.promote:
        key = BuildKey(name=planned.name, arch=planned.arch, build_id=planned.promote)
        return state.staged.get(key) or _released_manifest(state, key)
    return None if result is None else result.manifest


def _folder(state: State, key: BuildKey) -> BuildFolder:
    """The public copy of a build once there is one; else what is staged."""
    releases = state.history(key.name, key.arch)
    copies = (one.public for one in releases if one.manifest and one.manifest.key == key)
    return next((copy for copy in copies if copy), key.staging)


def _released_manifest(state: State, key: BuildKey) -> Manifest | None:
    manifests = (one.manifest for one in state.history(key.name, key.arch))
    return next((one for one in manifests if one and one.key == key), None)


def _changes(
    before: Manifest | None, after: Manifest | None, source: Source
) -> packages.Difference | None:
    if before is None or after is None:
        return None
    old, new = _packages(before, source), _packages(after, source)
    return None if old is None or new is None else packages.compare(old, new)


def _packages(manifest: Manifest, source: Source) -> tuple[Package, ...] | None:
    if manifest.packages is None:
        return None
    try:
        data = source.store.get(_folder(source.state, manifest.key).packages).data
    except NotFoundError:
        kept = source.aside and _kept(source.aside, manifest.key.staging.packages)
        if not kept:
            return None
        data = kept.read_bytes()
    return packages.parse(data.decode(errors="replace"))


def _kept(aside: Path, key: str) -> Path | None:
    """A file that was kept aside; a pull request may have put a link to any other there."""
    kept = (aside / key).resolve()
    return kept if kept.is_relative_to(aside.resolve()) and kept.is_file() else None


def _log(after: Manifest | None, source: Source) -> str:
    """The log's public place once the build is released, else the run."""
    if after is not None and source.base_url:
        folder = _folder(source.state, after.key)
        if folder.root == IMAGES:
            return f"{source.base_url.rstrip('/')}/{folder.log}"
    return source.run
