"""The entries of a report, from the plan, the results and the repository.

A report needs nothing that may just have failed: without the repository, sizes, packages and links
are left out.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lago_images.building.model import Result
from lago_images.ci.report.markdown import Entry
from lago_images.errors import Error, RepositoryError, StorageError
from lago_images.jobs.results import Fate
from lago_images.planning.model import WORK, Action, Plan, PlannedImage
from lago_images.repository.records.changes import (
    Package,
    PackageChanges,
    compare_known,
    parse_packages,
)
from lago_images.repository.records.layout import IMAGES, BuildFolder, BuildKey, ImageId
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.standing import standing
from lago_images.repository.records.state import State
from lago_images.repository.rendering import client_setup
from lago_images.storage.base import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The repository that builds are read from, and how clients know it.

    Attributes:
        store: None where the repository cannot be reached, and so is ``state``.
        base_url: Of the published repository's own record; empty where there is none.
        run: The URL of the CI run, or empty.
        aside: The folder where builds were kept that may not be uploaded.
        fates: By name, the end of this run's publication; None where there was none.
    """

    store: Store | None
    state: State | None
    base_url: str = ""
    run: str = ""
    aside: Path | None = None
    fates: Mapping[str, Fate] | None = None


def published_url(store: Store) -> str:
    """Return the base URL that the published ``repo.metadata`` has; empty if it has none.

    Never that of the settings: those of a pull request are its author's, and what a report links
    to is posted by our token.
    """
    try:
        bases = client_setup.read(store).bases
    except (RepositoryError, StorageError):
        return ""
    return bases[0] if len(bases) == 1 else ""


def entries(plan: Plan, results: Iterable[Result], source: Source) -> list[Entry]:
    """Make an entry for each image that the plan builds or promotes, in the plan's order."""
    by_name = {ImageId(result.name, result.arch): result for result in results}
    return [_entry(planned, by_name, source) for planned in plan.images if planned.action in WORK]


def _entry(planned: PlannedImage, results: Mapping[ImageId, Result], source: Source) -> Entry:
    result = results.get(ImageId(planned.name, planned.arch))
    before = _published(planned, source.state) if source.state else None
    after = _built(planned, result, source.state)
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
    """Return the build that was public when the plan was made, whatever was released since."""
    history = state.history(planned.name, planned.arch)
    # The newest revision may be a withdrawal: an older release is what clients have then.
    then = standing(tuple(r for r in history if r.revision <= planned.revision))
    return then[-1].manifest if then else None


def _built(planned: PlannedImage, result: Result | None, state: State | None) -> Manifest | None:
    if planned.action is Action.PROMOTE and planned.promote and state:
        key = BuildKey(name=planned.name, arch=planned.arch, build_id=planned.promote)
        # gc removes what is staged once it is released; the release has the manifest, too.
        released = (release.manifest for release in state.history(planned.name, planned.arch))
        return state.staged.get(key) or next((m for m in released if m and m.key == key), None)
    return None if result is None else result.manifest


def _folder(state: State, key: BuildKey) -> BuildFolder:
    """Return the public copy of a build once it is released; else what is staged."""
    releases = state.history(key.name, key.arch)
    copies = (
        release.public for release in releases if release.manifest and release.manifest.key == key
    )
    return next((copy for copy in copies if copy), key.staging)


def _changes(
    before: Manifest | None, after: Manifest | None, source: Source
) -> PackageChanges | None:
    if before is None or after is None:
        return None
    old, new = _packages(before, source), _packages(after, source)
    return compare_known(old, new)


def _packages(manifest: Manifest, source: Source) -> tuple[Package, ...] | None:
    if manifest.packages is None:
        return None
    data = None
    with suppress(Error):
        if source.store and source.state:
            data = source.store.get(_folder(source.state, manifest.key).packages).data
    if data is None and source.aside:
        kept = (source.aside / manifest.key.staging.packages).resolve()
        # The folder is an artifact of a pull request's job, which may have put a link in it.
        if kept.is_relative_to(source.aside.resolve()) and kept.is_file():
            data = kept.read_bytes()
    return None if data is None else parse_packages(data.decode(errors="replace"))


def _log(after: Manifest | None, source: Source) -> str:
    """Return the log's public place once the build is released, else the run's."""
    if after is None or not source.base_url or source.state is None:
        return source.run
    # What waits to be released is read by the project alone.
    folder = _folder(source.state, after.key)
    if folder.root == IMAGES:
        return f"{source.base_url.rstrip('/')}/{folder.log}"
    return source.run
