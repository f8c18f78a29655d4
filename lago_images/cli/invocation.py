"""One call of the command line: its options, its settings, and the workspace made of them."""

import os
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lago_images.cli.hints import completed
from lago_images.console import Console, Mode

# --help, --version and completion come this far: what they do without is imported where it is used.
if TYPE_CHECKING:
    from lago_images.jobs.workspace import Workspace
    from lago_images.planning.git import Git
    from lago_images.repository.records.state import State
    from lago_images.settings import Settings
    from lago_images.storage.base import Store

# Where an option has not its setting's name.
_OPTIONS = {"name": "--repo-name"}


@dataclass(kw_only=True)
class Invocation:
    """Hold the options of a call, and make of them what a command needs, when it does.

    Attributes:
        environ: The environment variables of the call.
        console: Where progress and errors go.
        start: Where the search for the specs repository starts.
        overrides: Settings given as options, by name.
        debug: Show a traceback for every error.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    console: Console
    start: Path = field(default_factory=Path.cwd)
    overrides: dict[str, Any] = field(default_factory=dict)
    debug: bool = False

    def override(self, **settings: object) -> None:
        """Let options replace settings; None stands for an option that was not given."""
        given = {name: value for name, value in settings.items() if value is not None}
        self.overrides.update(given)

    def use_repository(self, url: str) -> None:
        """Take the repository of the command line; its path starts at the current folder."""
        from lago_images.storage.open import from_folder  # noqa: PLC0415

        self.override(repository=from_folder(url, Path.cwd()))

    @property
    def own_repository(self) -> str:
        """Return the repository of the settings, whichever one the call names."""
        return self._loaded.repository

    @cached_property
    def root(self) -> Path:
        """Return the folder of the specs repository: paths in specs and settings start there.

        Raises ``UsageError`` where there is no folder that ``-C`` names; only ``init`` makes it.
        """
        if not self.start.is_dir():
            from lago_images.errors import UsageError  # noqa: PLC0415

            hint = "-C names that of a specs repository; lago-images init FOLDER makes one"
            raise UsageError(f"there is no folder {self.start}", hint=hint)
        return find_root(self.start.resolve())

    @property
    def settings(self) -> "Settings":
        """Return the settings; raises ``SettingsError`` with every problem of them."""
        options = {
            name: _OPTIONS.get(name, "--" + name.replace("_", "-")) for name in self.overrides
        }
        origins = {**self._loaded.origins, **options}
        return replace(self._loaded, origins=origins, **self.overrides)

    @cached_property
    def _loaded(self) -> "Settings":
        from lago_images.settings import load, unknown_variables  # noqa: PLC0415

        settings = load(self.root, self.environ)
        # Beside a shell's prompt a warning is in the way.
        is_completing = "_LAGO_IMAGES_COMPLETE" in self.environ
        for message in () if is_completing else unknown_variables(settings, self.environ):
            self.console.warn(message)
        return settings

    @property
    def has_specs(self) -> bool:
        """Return whether there is a folder of specs; raises as ``settings``."""
        return (self.root / self.settings.specs).is_dir()

    @cached_property
    def git(self) -> "Git | None":
        """Return the git repository that the specs are in; None outside git."""
        # GitPython takes a seventh of a second to import, and some commands do without.
        from lago_images.planning.git import Git  # noqa: PLC0415

        return Git.find(self.root)

    def completed(self, text: str, repository: str | None = None) -> str:
        """Return a text whose commands of ours act where this call did, or on another repository.

        It is to be told to people: ``repository`` may be what they are to put in.
        """
        named = self.overrides.get("repository") if repository is None else repository
        folder = _folder(self.root) if self.start.is_dir() else None
        return completed(text, folder, named)

    def store(self) -> "Store":
        """Open the repository's store."""
        from lago_images.storage.open import open_store  # noqa: PLC0415

        return open_store(
            self.settings.repository,
            settings=self.settings,
            environ=self.environ,
            console=self.console,
        )

    def store_to_publish(self) -> "Store":
        """Open the repository's store to write to it: not among the specs, nor over them."""
        from lago_images.errors import SettingsError  # noqa: PLC0415
        from lago_images.settings import misplaced  # noqa: PLC0415

        # Elsewhere there are no specs to publish among: a repository's own folder may be the root.
        if self.has_specs and (problem := misplaced(self.settings, self.root)):
            raise SettingsError([problem])
        return self.store()

    def read_repository(self) -> "tuple[Store, State]":
        """Read the repository, and say what of it is missing or damaged."""
        from lago_images.repository.records import gaps  # noqa: PLC0415
        from lago_images.repository.records.presence import Presence, look  # noqa: PLC0415
        from lago_images.repository.records.state import read  # noqa: PLC0415

        store = self.store()
        # To a store a mistyped path is a repository with nothing in it.
        is_missing = store.folder is not None and not store.folder.exists()
        if is_missing:
            self.console.warn(f"there is no folder {store.folder}: nothing is published there")
        started = time.monotonic()
        content = read(store)
        self.console.detail(
            f"read the releases of {len(content.images)} images in {store.url} in "
            f"{time.monotonic() - started:.2f} s"
        )
        if not content.objects and not is_missing and look(store) is not Presence.OURS:
            self.console.warn(f"there is nothing of lago-images in {store.url}: check --repository")
        for message in content.damaged_unaccepted.values():
            self.console.warn(f"{message}; restore it from a copy")
        for message in gaps.warnings(content.missing_unaccepted):
            self.console.warn(message)
        return store, content

    def judging_workspace(self, *, must_judge: bool) -> "Workspace":
        """Make a workspace that asks GitHub who made a build, where settings say ``attested``.

        Without ``must_judge`` a plan outside the workflow is made, and promotes nothing. Raises
        ``UsageError`` where GitHub must be asked and cannot be.
        """
        workspace = self.workspace()
        if workspace.settings.promote != "attested":
            return workspace
        from lago_images.ci import attestations  # noqa: PLC0415

        if not must_judge and not self.environ.get(attestations.SIGNER):
            return workspace
        return replace(workspace, objection=attestations.judge(self.environ))

    def workspace(self, *, logs: Path | None = None, aside: Path | None = None) -> "Workspace":
        """Make the one value that plan, build and publish are handed.

        Args:
            logs: The folder for the images' logs; else one of this run's own.
            aside: Write nothing to the repository: builds are kept in this folder.
        """
        # It imports all of building: too much for --help.
        from lago_images.building import kept_logs  # noqa: PLC0415
        from lago_images.errors import SettingsError  # noqa: PLC0415
        from lago_images.jobs import workspace  # noqa: PLC0415
        from lago_images.settings import missing_specs  # noqa: PLC0415

        if problem := missing_specs(self.settings, self.root):
            raise SettingsError([problem])
        store, cache = self.store_to_publish(), workspace.cache_folder(self.environ)
        return workspace.Workspace(
            root=self.root,
            settings=self.settings,
            console=self.console,
            environ=self.environ,
            store=store if aside is None else workspace.set_aside(store, aside),
            git=self.git,
            cache=cache,
            logs=(logs or kept_logs.new_logs(cache)).absolute(),
            clock=time.time,
        )


def command(root: Path, repository: str | None, *words: str) -> str:
    """Return a command line that works in the current folder as the call did that it follows.

    Args:
        root: The specs repository of the call.
        repository: Its repository, where an option named it; None for that of the settings.
        words: The command and its arguments.
    """
    return completed(shlex.join(["lago-images", *words]), _folder(root), repository)


def _folder(root: Path) -> str | None:
    """Return what ``-C`` says of the specs repository; None where the current folder is in it."""
    here = Path.cwd()
    if root.resolve() == find_root(here):
        return None
    return os.path.relpath(root) if root.is_relative_to(here) else str(root)


def find_root(start: Path) -> Path:
    """Return the nearest folder, from ``start`` up, with settings or specs; else ``start``."""
    from lago_images.settings import FILE  # noqa: PLC0415

    # As git finds its repository, so that commands work in any folder of it.
    for folder in (start, *start.parents):
        if (folder / FILE).is_file() or (folder / "image-specs").is_dir():
            return folder
    return start


def console_for(environ: Mapping[str, str]) -> Console:
    """Return a console for GitHub's log, a terminal, a CI's log with times, or a plain log."""
    # Only GitHub's runner reads workflow commands; it sets this in every step. It also writes the
    # time before each line of the log.
    if environ.get("GITHUB_ACTIONS") == "true":
        return Console(mode=Mode.GITHUB)
    # A dumb terminal cannot draw a line anew.
    if not sys.stderr.isatty() or environ.get("TERM", "dumb") == "dumb":
        # Jenkins, GitLab and most others set CI; Jenkins has times only with a plugin.
        in_ci = environ.get("CI", "false") not in ("", "0", "false")
        return Console(moment=(lambda: time.strftime("%H:%M:%S")) if in_ci else None)
    if not has_colour(environ):
        return Console(mode=Mode.TERMINAL)
    return Console(
        mode=Mode.TERMINAL, paint=lambda line, kind: click.style(line, fg=_COLOURS[kind])
    )


_COLOURS = {"warning": "yellow", "error": "red"}


def has_colour(environ: Mapping[str, str]) -> bool:
    """Return whether people want colour, on a terminal that has it."""
    # https://no-color.org: any value but an empty one. A dumb terminal shows the codes.
    return not environ.get("NO_COLOR") and environ.get("TERM", "dumb") != "dumb"


def finish(*, succeeded: bool) -> None:
    """End the command with 1 if the work failed."""
    if not succeeded:
        raise click.exceptions.Exit(1)


def _take(ctx: click.Context, param: click.Parameter, value: object) -> None:
    """Hand a shared option to the invocation, if it is given."""
    invocation: Invocation | None = ctx.obj
    # It may stand before and after the command: what is not given at one place changes nothing
    # there. There is no invocation while help texts are read for man pages.
    if value in (None, False) or invocation is None:
        return
    match param.name:
        case "directory":
            invocation.start = Path(str(value))
        case "repository":
            invocation.use_repository(str(value))
        case "debug":
            invocation.debug = True
        case _:  # quiet or verbose; the last one given counts
            invocation.console.quiet = param.name == "quiet"
            invocation.console.verbose = param.name == "verbose"


def shared_options() -> list[click.Option]:
    """Return the options that every command takes."""
    return [
        click.Option(
            ["-C", "--directory"],
            type=click.Path(file_okay=False),
            expose_value=False,
            is_eager=True,
            callback=_take,
            help="The specs repository; searched from here upwards by default. Paths on the "
            "command line start at the current folder all the same.",
        ),
        click.Option(
            ["--repository"],
            metavar="URL",
            expose_value=False,
            callback=_take,
            help="s3://bucket/prefix, file:///dir or a path from the current folder.",
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_take,
            help="Print only data, warnings and failures.",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_take,
            help="Print details: what is read and asked, and how long that took.",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            expose_value=False,
            callback=_take,
            help="Show the traceback of an error.",
        ),
    ]
