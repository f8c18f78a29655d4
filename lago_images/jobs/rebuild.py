"""Do a whole run on one machine: plan, build, publish."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lago_images.building.model import Result
from lago_images.jobs.build import build
from lago_images.jobs.plan import tree_of
from lago_images.jobs.publish import PublicationOutcome, prove, publish
from lago_images.jobs.workspace import Workspace
from lago_images.planning.model import Action, Plan
from lago_images.repository.records.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The outcome of a run."""

    results: tuple[Result, ...]
    publication: PublicationOutcome

    @property
    def ok(self) -> bool:
        return self.publication.ok and all(result.ok for result in self.results)


def run(
    workspace: Workspace,
    plan: Plan,
    state: State,
    report: Callable[[Sequence[Result]], None],
    *,
    outdated: bool = False,
) -> Run:
    """Build what a plan says and publish it. What fails takes its layers with it, no one else.

    ``state`` is what the plan was made from. ``report`` is called with how the builds ended,
    before anything is published. ``outdated`` asks outside once more then, and records what is
    outdated still.
    """
    names = [image.name for image in plan.images if image.action is Action.BUILD]
    # As it is now: what is edited while it is built is for the next run.
    tree = tree_of(workspace)
    # Hours of building for a bucket that refuses the first write would be for nothing.
    if names:
        prove(workspace)
    results = tuple(build(workspace, plan, names)) if names else ()
    report(results)
    published = publish(
        workspace,
        plan,
        results,
        seen=state,
        tree=tree,
        outdated=outdated,
        is_proven=bool(names),
    )
    return Run(results=results, publication=published)
