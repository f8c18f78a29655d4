"""Ask outside what is outdated of what is published, and record it for whoever renders."""

from collections.abc import Iterator, Mapping

from lago_images.console import first_of
from lago_images.errors import Error
from lago_images.jobs.plan import find_outdated
from lago_images.jobs.workspace import Workspace
from lago_images.planning.model import Tree
from lago_images.repository.publishing.outdated import record
from lago_images.repository.records.changes import Upstream
from lago_images.repository.records.layout import ImageId
from lago_images.repository.records.outdated import Outdated
from lago_images.repository.records.standing import standing
from lago_images.repository.records.state import State, read

# As many images or changes as a message names.
_SHOWN = 3


def record_outdated(workspace: Workspace, tree: Tree) -> bool:
    """Record of each current release what a build of its spec would get otherwise today.

    That is, where its spec here is what it was built of. What cannot be known is warned of, and
    nothing is recorded of it. Nothing is raised: a publication does not depend on it.

    Args:
        workspace: Where the job works; its repository was found safe to write.
        tree: The specs as they are checked out.

    Returns:
        Whether there is a new record, so that it is rendered.
    """
    is_new = False
    try:
        state, asked = read(workspace.store), workspace.clock()
        found = find_outdated(workspace, state, tree)
        _warn_of_unknown(workspace, found)
        for made in _record(workspace, state, found, asked):
            is_new = True
            workspace.console.info(_line(made))
    except (Error, OSError) as error:
        message = error.message if isinstance(error, Error) else str(error)
        workspace.console.warn(f"what is outdated is not recorded: {message}")
    return is_new


def _record(
    workspace: Workspace, state: State, found: Mapping[ImageId, Upstream], asked: float
) -> Iterator[Outdated]:
    for image, upstream in found.items():
        release, newest = state.current(*image), standing(state.history(*image))[-1]
        # What was found is of the newest that stands, which repo gc may have retired.
        if release and release.revision == newest.revision:
            made = record(workspace.store, state, release, upstream, asked)
            if made is not None:
                yield made


def _warn_of_unknown(workspace: Workspace, found: Mapping[ImageId, Upstream]) -> None:
    """Warn once of each reason: a source that does not answer may be that of all images."""
    by_reason: dict[str, list[str]] = {}
    for image, upstream in found.items():
        if upstream.unknown:
            by_reason.setdefault(upstream.unknown, []).append(image.name)
    for reason, names in by_reason.items():
        shown = first_of(names, _SHOWN)
        workspace.console.warn(f"whether {shown} would get other is not known: {reason}")


def _line(made: Outdated) -> str:
    of = f"{made.name} ({made.arch}): revision {made.revision}"
    if not made.upstream.is_outdated:
        return f"{of} is no longer outdated"
    return f"{of} is outdated: {made.upstream.summary(_SHOWN)}"
