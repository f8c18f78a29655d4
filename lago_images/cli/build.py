"""``lago-images build``: build and publish into a directory, as the older tool did."""

import shlex
from pathlib import Path

import click

from lago_images.addresses import is_bucket
from lago_images.cli.completion import spec_names
from lago_images.cli.documents import FORMAT
from lago_images.cli.invocation import Invocation
from lago_images.cli.output import build_and_publish, timings_file
from lago_images.cli.targets import FOLDER, LocalPath, writable
from lago_images.cli.values import CHAINS
from lago_images.errors import UsageError
from lago_images.jobs.plan import plan_and_state
from lago_images.jobs.publish import refuse_settings
from lago_images.planning.history import Ask
from lago_images.repository.records.layout import KEY, SIGNED_INDEX
from lago_images.settings import DEFAULT_REPOSITORY

_HINT = "to publish to a bucket: lago-images ci rebuild --changed"


class _Directory(LocalPath):
    """Take the folder of a repository; refuse a bucket as ``--repository`` does."""

    def refusal(self, text: str) -> UsageError:
        return _is_bucket(text) if text.lower().startswith("s3:") else super().refusal(text)


def _is_bucket(url: str) -> UsageError:
    return UsageError(f"build makes a directory, and {url} is a bucket", hint=_HINT)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME…]", shell_complete=spec_names)
@click.option(
    "--repo-dir",
    type=_Directory(file_okay=False),
    help="The repository's directory. [default: that of the settings, else ./image-repo]",
)
@click.option("--repo-name", help="The repository's name, as lago shows it.")
@click.option("--base-url", help="Where clients will find the repository.")
@click.option("--force", is_flag=True, help="Build also what has not changed.")
@click.option("--logs", type=FOLDER, callback=writable, help="Keep each image's log here.")
@click.option("--jobs", "side_by_side", type=CHAINS, help="Chains at a time.")
@click.option("--require-kvm", is_flag=True, default=None, help="Refuse to build without KVM.")
@timings_file
@FORMAT
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
    timings: Path | None,
    form: str,
) -> None:
    """Build images and publish them into a directory.

    All specs, or those whose name is one of NAMEs, which may have * and ? as shells have them. What
    has not changed since it was published is not built again, unless it is named or --force is
    given. A bucket is never written: where the settings
    name one, ./image-repo is used, unsigned and without the bucket's base-url. To publish to a
    bucket: lago-images ci rebuild.
    """
    # The older tool's command writes a folder, and people call it on their laptops: the settings
    # of a specs repository name the bucket of all of them.
    if is_bucket(invocation.settings.repository):
        _leave_bucket(invocation, asked_for_directory=repo_dir is not None)
        _refuse_signed((repo_dir or invocation.settings.folder / DEFAULT_REPOSITORY).absolute())
    if repo_dir is not None:
        invocation.override(repository=str(repo_dir.absolute()))
    invocation.override(
        name=repo_name, base_url=base_url, jobs=side_by_side, require_kvm=require_kvm
    )
    workspace = invocation.workspace(logs=logs)
    refuse_settings(workspace)
    ask = Ask(changed=not names, force=frozenset(names), everything=force and not names)
    # In a directory what is not committed is published with a warning.
    plan, state = plan_and_state(workspace, ask)
    build_and_publish(workspace, plan, state, allow_dirty=True, timings=timings, form=form)


def _leave_bucket(invocation: Invocation, *, asked_for_directory: bool) -> None:
    """Use a directory, and none of what the settings say of their bucket."""
    bucket = invocation.settings.repository
    if "repository" in invocation.overrides and not asked_for_directory:
        raise _is_bucket(bucket)
    invocation.override(
        repository=DEFAULT_REPOSITORY, base_url="", signing_key="", single_writer=False
    )
    invocation.console.info(f"building into a directory, unsigned, and not into {bucket}; {_HINT}")


def _refuse_signed(folder: Path) -> None:
    """Refuse a directory that was signed: it would be left with an index that clients trust."""
    if any((folder / name).exists() for name in (KEY, SIGNED_INDEX)):
        shown = shlex.quote(str(folder))
        raise UsageError(
            f"{folder} is signed, and build signs nothing where the settings name a bucket",
            hint=f"name another with --repo-dir, remove {shown}, or sign with signing-key: "
            f"lago-images --repository {shown} build",
        )
