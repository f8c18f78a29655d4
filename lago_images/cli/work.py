"""What the commands that build and publish share."""

import secrets
import shutil
import time
from pathlib import Path

import click

from lago_images.ci.workspace import Workspace
from lago_images.cli.common import Invocation
from lago_images.planning import document
from lago_images.planning.model import Plan
from lago_images.storage.directory import DirectoryStore
from lago_images.storage.overlay import OverlayStore

# The runs whose logs are kept for the user. A build's log is in the repository, too.
_RUNS = 50


def workspace(
    invocation: Invocation, *, logs: Path | None = None, aside: Path | None = None
) -> Workspace:
    """Where a job of this invocation works.

    Args:
        invocation: The call.
        logs: The folder for the images' logs; else one of this run's own.
        aside: Write nothing to the repository: what is built is kept in this folder.
    """
    store = invocation.store()
    if aside is not None:
        store = OverlayStore(upper=DirectoryStore(path=aside / "repository"), lower=store)
    return Workspace(
        root=invocation.root,
        settings=invocation.settings,
        console=invocation.console,
        environ=invocation.environ,
        store=store,
        git=invocation.git,
        cache=invocation.cache,
        logs=(logs or _own_logs(invocation.cache / "logs")).absolute(),
        clock=time.time,
    )


def _own_logs(folder: Path) -> Path:
    """Where this run's logs will be; those of runs long ago are removed."""
    runs = sorted(run for run in folder.iterdir() if run.is_dir()) if folder.is_dir() else []
    for old in runs[: -_RUNS + 1]:
        shutil.rmtree(old, ignore_errors=True)
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return folder / f"{moment}-{secrets.token_hex(4)}"


def plan_of(path: Path | None) -> Plan | None:
    """The saved plan, if one is named."""
    return None if path is None else document.load(path)


def show_plan(invocation: Invocation, made: Plan) -> None:
    """The plan, on stderr: stdout is for data."""
    for line in document.to_text(made).splitlines():
        invocation.console.info(line)


def finish(*, succeeded: bool) -> None:
    """End the command with 1 if the work failed."""
    if not succeeded:
        raise click.exceptions.Exit(1)


def override(invocation: Invocation, **settings: object) -> None:
    """Set what was given as options."""
    given = {name: value for name, value in settings.items() if value is not None}
    invocation.overrides.update(given)
