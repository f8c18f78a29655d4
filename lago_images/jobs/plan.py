"""Run the job that decides: what there is to do, and why."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from lago_images.console import first_of
from lago_images.errors import UsageError
from lago_images.host.process import Runner
from lago_images.host.workdir import default_scratch, workdir
from lago_images.jobs.workspace import Workspace
from lago_images.planning import plan as planner
from lago_images.planning.history import Ask, History, Holdings, gather
from lago_images.planning.holdings import holdings
from lago_images.planning.line import published_branch
from lago_images.planning.model import WORK, Action, Plan, Tree
from lago_images.planning.tree import prefixes, read_tree
from lago_images.planning.uncommitted import Uncommitted
from lago_images.repository.records import gaps
from lago_images.repository.records.changes import Upstream
from lago_images.repository.records.layout import BuildKey, ImageId
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.outline import ReleaseOutline
from lago_images.repository.records.state import Offers, State, outlined, survey
from lago_images.settings import FILE
from lago_images.storage.base import Store

# What to do about a plan of another checkout.
PLAN_ANEW = (
    "make one anew: lago-images ci plan --output plan.json, and build again; or check out the "
    "plan's commit"
)
# As many files as a message names.
_SHOWN = 3
_S = TypeVar("_S", Offers[ReleaseOutline], State)


def tree_of(workspace: Workspace) -> Tree:
    """Read the specs as they are checked out."""
    return read_tree(workspace.root, workspace.settings, workspace.git)


def plan(workspace: Workspace, ask: Ask, *, scope: str | None = None) -> Plan:
    """Decide what there is to do, and why. Reads git and the repository; changes nothing.

    ``scope`` limits the plan to what changed since a revision. Raises ``UsageError`` when git
    does not know that.
    """
    if ask.outdated:
        return plan_and_state(workspace, ask, scope=scope)[0]
    return _plan(workspace, ask, scope, outlined)[0]


def plan_and_state(
    workspace: Workspace, ask: Ask, *, scope: str | None = None
) -> tuple[Plan, State]:
    """Plan as ``plan`` does; return also the state, which the publisher need not read again."""
    return _plan(workspace, ask, scope, survey)


def _plan(
    workspace: Workspace, ask: Ask, scope: str | None, read: Callable[[Store], _S]
) -> tuple[Plan, _S]:
    started = time.monotonic()
    tree = tree_of(workspace)
    ask = planner.named(ask, tree)
    _detail(workspace, f"read {len(tree.specs)} specs below {workspace.root}", started)
    started = time.monotonic()
    state = read(workspace.store)
    message = (
        f"{len(state.images)} images, {len(state.staged)} staged builds in {workspace.store.url}"
    )
    _detail(workspace, f"read {message}", started)
    started = time.monotonic()
    for message in state.damaged_unaccepted.values():
        workspace.console.warn(message)
    for message in gaps.warnings(state.missing_unaccepted):
        workspace.console.warn(message)
    known = holdings(state)
    promote = ask.promote and workspace.is_promoting
    ask = replace(ask, promote=promote, promote_days=workspace.settings.grace_days)
    history = _history(workspace, tree, planner.suspects(tree, known, ask), known.commit, scope)
    since = f" since {known.commit[:7]}" if known.commit else ""
    _detail(workspace, f"asked git what changed{since}, of {history.head or 'no commit'}", started)
    upstream: Mapping[str, Upstream] = {}
    if ask.outdated and isinstance(state, State):
        upstream = _upstream(workspace, tree, known, state)
    # Asked after git, which may fetch for minutes.
    now = workspace.clock()
    decided = planner.make(tree, known, history, ask, now, upstream)
    # A refused build may have hidden an older one that GitHub attests, so it is planned again.
    while refused := _refused(workspace, decided, state.staged):
        known = known.without(refused)
        decided = planner.make(tree, known, history, ask, now, upstream)
    return decided, state


def find_outdated(
    workspace: Workspace, state: State, tree: Tree | None = None
) -> Mapping[ImageId, Upstream]:
    """Ask outside what builds would get today that releases of the specs here have otherwise.

    Images without a spec here, and those whose spec changed since, are left out. The specs are
    ``tree``, or what is checked out now. Raises ``SpecError``.
    """
    tree = tree or tree_of(workspace)
    found = _upstream(workspace, tree, holdings(state), state)
    return {ImageId(name, tree.specs[name].arch): each for name, each in found.items()}


def _upstream(
    workspace: Workspace, tree: Tree, known: Holdings, state: State
) -> Mapping[str, Upstream]:
    # It imports what prepares bases, and no other plan does.
    from lago_images.planning import upstream  # noqa: PLC0415

    started = time.monotonic()
    with workdir(default_scratch(workspace.environ), workspace.console) as folder:
        runner = Runner(environ={**workspace.environ, "TMPDIR": str(folder)})
        found = upstream.gather(tree, known, state, workspace, runner, folder)
    _detail(workspace, f"asked outside what {len(found)} images would be built of", started)
    return found


def _detail(workspace: Workspace, message: str, started: float) -> None:
    workspace.console.detail(f"{message} in {time.monotonic() - started:.2f} s")


def _refused(
    workspace: Workspace, plan: Plan, staged: Mapping[BuildKey, Manifest]
) -> frozenset[str]:
    """Return the builds that a plan promotes although nothing says who built them."""
    refused = set()
    for image in plan.images:
        if workspace.objection is None or image.action is not Action.PROMOTE or not image.promote:
            continue
        key = BuildKey(name=image.name, arch=image.arch, build_id=image.promote)
        if why := workspace.objection(staged[key]):
            workspace.console.warn(f"{why}: {image.name} is built again")
            refused.add(image.promote)
    return frozenset(refused)


def is_dirty(plan: Plan, uncommitted: Uncommitted, name: str) -> bool:
    """Return whether the commit of a plan lacks something of what an image is made of here.

    A plan of a dirty checkout is no plan of its commit where all is committed.
    """
    elsewhere = plan.dirty and not uncommitted.tree.dirty
    return elsewhere or bool(uncommitted.behind([name]))


def uncommitted_work(workspace: Workspace, plan: Plan) -> str:
    """Return which files of what a plan builds or promotes are not committed, and how not.

    Both by the plan and by what is checked out here; empty where all is committed.
    """
    work = [image.name for image in plan.images if image.action in WORK]
    tree = tree_of(workspace) if work else None
    if tree is None or not (tree.dirty or plan.dirty):
        return ""
    commit = f"commit {plan.head[:7]}" if plan.head else "any commit"
    if plan.dirty and not tree.dirty:
        return f"what the plan was made from differs from {commit}"
    return "; ".join(_uncommitted(workspace, tree, Uncommitted.of(tree).behind(work), commit))


def refuse_dirty(workspace: Workspace, plan: Plan, *, allow: bool) -> None:
    """Refuse to publish to a bucket what is not committed; for a directory, warn of it.

    What the plan leaves as it is may be as it is. Raises ``UsageError``.
    """
    message = uncommitted_work(workspace, plan)
    if message and workspace.store.folder is None and not allow:
        raise UsageError(
            f"{message}: nobody could say what is published",
            hint="commit it; or publish it all the same, and on record: --allow-dirty",
        )
    if message:
        workspace.console.warn(f"NOT COMMITTED: {message}; published all the same")


def _uncommitted(
    workspace: Workspace, tree: Tree, dirty: frozenset[str], commit: str
) -> Iterator[str]:
    """Yield, of files that are not as in the commit, which differ, and which it lacks."""
    if workspace.git is None or not dirty:
        return
    paths = prefixes(workspace.settings.specs, tree.paths())
    lacking = dirty - workspace.git.committed(paths)
    ignored = lacking & workspace.git.ignored(paths) if lacking else lacking
    if files := dirty - lacking:
        yield f"{_named(files)} {'differ' if len(files) > 1 else 'differs'} from {commit}"
    if files := lacking - ignored:
        yield f"{_named(files)} {'are' if len(files) > 1 else 'is'} in no commit"
    if ignored:
        verb, them, their = ("are", "them", "their") if len(ignored) > 1 else ("is", "it", "its")
        yield (
            f"{_named(ignored)} {verb} ignored by git (.gitignore) and in no commit: "
            f"commit {them}, or name {their} URL"
        )


def _named(files: frozenset[str]) -> str:
    return first_of(sorted(files), _SHOWN)


def refuse_passing(workspace: Workspace) -> None:
    """Refuse a repository that only this job would see, before hours of building for nothing.

    Raises ``UsageError`` when it is a directory inside the job's own checkout.
    """
    own, folder = _checkout(workspace.environ), workspace.store.folder
    if own is not None and folder is not None and folder.resolve().is_relative_to(own):
        raise UsageError(
            f"the repository {workspace.settings.repository} is inside this job's checkout, "
            "which no other job sees: nothing built could be published",
            hint=f"set repository in {FILE}, or LAGO_IMAGES_REPOSITORY, to s3://bucket/prefix or "
            "a folder that all jobs share",
        )


def _history(
    workspace: Workspace,
    tree: Tree,
    commits: Iterable[str],
    published: str | None,
    scope: str | None,
) -> History:
    if workspace.git is None and scope:
        raise UsageError(
            f"what changed since {scope!r} is not known: {workspace.root} is not in a git "
            "repository",
            hint="leave --base out, or git init and commit the specs",
        )
    if workspace.git is None:
        return History()
    paths = (*prefixes(workspace.settings.specs, tree.paths()), FILE)
    return gather(
        workspace.git,
        commits=commits,
        published=published,
        paths=paths,
        scope=scope,
        branch=published_branch(workspace.environ, workspace.settings.branch),
    )


def _checkout(environ: Mapping[str, str]) -> Path | None:
    """Return the folder that the CI checks this job out into, alone; None outside CI."""
    # https://docs.github.com/actions/reference/workflows-and-actions/variables
    if environ.get("GITHUB_ACTIONS") == "true":
        folder = environ.get("GITHUB_WORKSPACE", "")
    else:
        # WORKSPACE by itself is no sign of Jenkins: people name variables so.
        # https://www.jenkins.io/doc/book/pipeline/jenkinsfile/#using-environment-variables
        folder = environ.get("WORKSPACE", "") if environ.get("JENKINS_URL") else ""
    return Path(folder).resolve() if folder else None
