"""Run the job that decides: what there is to do, and why."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from lago_images.errors import UsageError
from lago_images.jobs.workspace import Workspace
from lago_images.planning import plan as planner
from lago_images.planning.history import Ask, History, gather
from lago_images.planning.holdings import holdings
from lago_images.planning.line import published_branch
from lago_images.planning.model import Action, Plan, Tree
from lago_images.planning.tree import prefixes, read_tree
from lago_images.repository.records.layout import BuildKey
from lago_images.repository.records.state import State, survey
from lago_images.settings import FILE

# As many files as a message names.
_SHOWN = 3


def tree_of(work: Workspace) -> Tree:
    """Read the specs as they are checked out."""
    return read_tree(work.root, work.settings, work.git)


def plan(work: Workspace, ask: Ask, *, scope: str | None = None) -> Plan:
    """Decide what there is to do, and why. Reads git and the repository; changes nothing.

    ``scope`` limits the plan to what changed since a revision. Raises ``UsageError`` when git
    does not know that.
    """
    return plan_and_state(work, ask, scope=scope)[0]


def plan_and_state(work: Workspace, ask: Ask, *, scope: str | None = None) -> tuple[Plan, State]:
    """Plan as ``plan`` does; return also the state, which the publisher need not read again."""
    tree, state = tree_of(work), survey(work.store)
    for what in state.damaged.values():
        work.console.warn(what)
    known = holdings(state)
    promote = ask.promote and work.is_promoting
    ask = replace(ask, promote=promote, promote_days=work.settings.grace_days)
    history = _history(work, tree, planner.suspects(tree, known, ask), known.commit, scope)
    now = work.clock()
    made = planner.make(tree, known, history, ask, now)
    while refused := _refused(work, made, state):
        known = known.without(refused)
        made = planner.make(tree, known, history, ask, now)
    return made, state


def _refused(work: Workspace, made: Plan, state: State) -> frozenset[str]:
    """Return the builds that a plan promotes although nothing says who built them."""
    refused = set()
    for image in made.images:
        if work.objection is None or image.action is not Action.PROMOTE or not image.promote:
            continue
        key = BuildKey(name=image.name, arch=image.arch, build_id=image.promote)
        if why := work.objection(state.staged[key]):
            work.console.warn(f"{why}: {image.name} is built again")
            refused.add(image.promote)
    return frozenset(refused)


def refuse_dirty(work: Workspace, made: Plan, *, allow: bool) -> None:
    """Refuse to publish to a bucket what is not committed; for a directory, warn of it.

    Both by the plan and by what is checked out here. Raises ``UsageError``.
    """
    dirty = sorted(tree_of(work).dirty)
    if not (dirty or made.dirty):
        return
    files = ", ".join(dirty[:_SHOWN]) + (f" and {len(dirty) - _SHOWN} more" * (len(dirty) > _SHOWN))
    commit = f"commit {made.head[:7]}" if made.head else "any commit"
    what = f"{files or 'what the plan was made from'} {'differ' if dirty[1:] else 'differs'}"
    if work.store.folder is None and not allow:
        raise UsageError(
            f"{what} from {commit}: nobody could say what is published",
            hint="commit it; or publish it all the same, and on record: --allow-dirty",
        )
    work.console.warn(f"NOT COMMITTED: {what} from {commit}, and is published all the same")


def refuse_passing(work: Workspace) -> None:
    """Refuse a repository that only this job would see, before hours of building for nothing.

    Raises ``UsageError`` when it is a directory inside the job's own checkout.
    """
    own, folder = _checkout(work.environ), work.store.folder
    if own is not None and folder is not None and folder.resolve().is_relative_to(own):
        raise UsageError(
            f"the repository {work.settings.repository} is inside this job's checkout, "
            "which no other job sees: nothing built could be published",
            hint=f"set repository in {FILE}, or LAGO_IMAGES_REPOSITORY, to s3://bucket/prefix or "
            "a folder that all jobs share",
        )


def _history(
    work: Workspace,
    tree: Tree,
    commits: Iterable[str],
    published: str | None,
    scope: str | None,
) -> History:
    if work.git is None and scope:
        raise UsageError(
            f"what changed since {scope!r} is not known: {work.root} is not in a git repository",
            hint="leave --base out, or git init and commit the specs",
        )
    if work.git is None:
        return History()
    paths = (*prefixes(work.settings.specs, tree.paths()), FILE)
    return gather(
        work.git,
        commits=commits,
        published=published,
        paths=paths,
        scope=scope,
        branch=published_branch(work.environ, work.settings.branch),
    )


def _checkout(environ: Mapping[str, str]) -> Path | None:
    """Return the folder that the CI checks this job out into, alone; None outside CI."""
    if environ.get("GITHUB_ACTIONS") == "true":
        folder = environ.get("GITHUB_WORKSPACE", "")
    else:
        folder = environ.get("WORKSPACE", "") if environ.get("JENKINS_URL") else ""
    return Path(folder).resolve() if folder else None
