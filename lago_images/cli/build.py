"""``lago-images build``: the older tool's whole job, into a directory."""

from pathlib import Path

import click

from lago_images.cli.invocation import Invocation
from lago_images.cli.output import allow_dirty, build_and_publish
from lago_images.jobs.plan import plan_and_state
from lago_images.jobs.publish import refuse_settings
from lago_images.planning.history import Ask


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME…]")
@click.option(
    "--repo-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="The repository's directory. [default: ./image-repo]",
)
@click.option("--repo-name", help="The repository's name, as lago shows it.")
@click.option("--base-url", help="Where clients will find the repository.")
@click.option("--force", is_flag=True, help="Build also what has not changed.")
@click.option(
    "--logs", type=click.Path(path_type=Path, file_okay=False), help="Keep each image's log here."
)
@click.option("--jobs", "side_by_side", type=click.IntRange(min=1), help="Chains at a time.")
@click.option("--require-kvm", is_flag=True, default=None, help="Refuse to build without KVM.")
@allow_dirty
@click.pass_obj
def build(
    invocation: Invocation,
    names: tuple[str, ...],
    repo_dir: Path | None,
    repo_name: str | None,
    base_url: str | None,
    force: bool,
    logs: Path | None,
    side_by_side: int | None,
    require_kvm: bool | None,
    allow_dirty: bool,
) -> None:
    """Build images and publish them into a directory: all specs, or those that are NAMEd.

    What has not changed since it was published is not built again, unless it is named or --force
    is given.
    """
    invocation.override(
        repository=None if repo_dir is None else str(repo_dir.absolute()),
        name=repo_name,
        base_url=base_url,
        jobs=side_by_side,
        require_kvm=require_kvm,
    )
    workspace = invocation.workspace(logs=logs)
    refuse_settings(workspace)
    ask = Ask(changed=not names, force=frozenset(names), everything=force and not names)
    build_and_publish(workspace, *plan_and_state(workspace, ask), allow_dirty=allow_dirty)
