"""``lago-images lint``: print every problem of every spec."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import click

from lago_images.cli.completion import specs_or_paths
from lago_images.cli.invocation import Invocation
from lago_images.cli.tables import tell
from lago_images.console import Mode, inert
from lago_images.errors import Problem, UsageError
from lago_images.settings import misplaced, missing_specs
from lago_images.specs.choosing import chosen, did_you_mean
from lago_images.specs.commands import COMMANDS
from lago_images.specs.folder import QUARANTINE, is_spec_name, is_test_name, spec_names
from lago_images.specs.quarantine import day
from lago_images.specs.read import Inspected, inspect

_PROBLEMS = 2


@click.command()
@click.argument(
    "wanted", nargs=-1, metavar="[PATH|NAME]...", type=click.Path(), shell_complete=specs_or_paths
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How the problems are printed.",
)
@click.pass_context
def lint(ctx: click.Context, wanted: tuple[str, ...], form: str) -> None:
    """Print every problem of every spec.

    Each is a line: file:line: what. PATH is a folder of specs, the folder above it, or one spec or
    test; NAME is a spec in the specs' folder of the settings, and may have * and ? as shells have
    them; without either, all of that folder is checked. Specs are always checked together with the
    others in their folder, but only the problems of those asked for are printed. Exit code: 2 with
    problems, else 0.
    """
    invocation: Invocation = ctx.obj
    if wanted:
        paths = [path for each in wanted for path in _paths(each, invocation)]
        inspect_once = cache(inspect)
        parts = [_inspect(path, invocation, inspect_once) for path in paths]
    else:
        missing = missing_specs(invocation.settings, invocation.root)
        parts = (
            [Inspected({}, [missing], 0)]
            if missing
            else [inspect(invocation.root, invocation.settings.specs)]
        )
    inspected = Inspected(
        {spec.path: spec for part in parts for spec in part.specs.values()},
        [problem for part in parts for problem in part.problems],
        sum(part.files for part in parts),
    )
    of_settings = [] if wanted else list(_of_settings(invocation))
    problems = sorted(
        {*inspected.problems, *of_settings}, key=lambda p: (p.path, p.line or 0, p.what)
    )
    _print(problems, inspected.files, form, invocation)
    for spec in inspected.specs.values():
        for operation in spec.operations:
            if until := COMMANDS[operation.name].until:
                message = f"{operation.name} is in guestfs-tools up to {until} only"
                invocation.console.info(f"{spec.path}:{operation.line}: note: {message}")
    for part in parts if not problems else ():
        for line, message in part.quarantine.notes(part.specs, day(time.time())):
            invocation.console.warn(f"{part.quarantine.path}:{line}: {message}")
    ctx.exit(_PROBLEMS if problems else 0)


def _of_settings(invocation: Invocation) -> Iterator[Problem]:
    """Yield what every later command refuses of the settings; warn of what only harms."""
    settings = invocation.settings
    if problem := misplaced(settings, invocation.root):
        yield problem
    try:
        has_file = any(path.is_file() for path in settings.key_files)
    except UsageError as error:
        yield settings.problem("signing_key", f"{error.message}: {error.hint}")
        return
    if not has_file:
        return
    # lint is run at every save, and asks git of nothing else.
    from lago_images.planning.key_files import exposures  # noqa: PLC0415

    for exposure in exposures(settings, lambda: invocation.git):
        place = settings.problem("signing_key", f"{exposure.what}; {exposure.do}")
        if exposure.is_public:
            yield place
        else:
            invocation.console.warn(str(place))


def _paths(wanted: str, invocation: Invocation) -> list[Path]:
    """Return the path that is meant, or those of the specs that a name or pattern means."""
    path = Path(wanted)
    if wanted and path.exists():
        return [path]
    folder = invocation.root / invocation.settings.specs
    known = spec_names(folder) if folder.is_dir() else []
    specs = f"the specs are in {folder}: lago-images lint checks them all"
    if path.name != wanted:
        more = "" if path.name in known else ", and no spec of that name"
        hint = did_you_mean(path.name, known, specs)
        raise UsageError(f"there is no file {wanted}{more}", hint=hint)
    return [folder / name for name in chosen([wanted], known, otherwise=specs)]


def _inspect(
    path: Path, invocation: Invocation, inspect_once: Callable[[Path, str], Inspected]
) -> Inspected:
    """Inspect one path, which may be outside the specs repository."""
    # The last part is not resolved: a link in the folder is a spec of its own name.
    asked = path.parent.resolve() / path.name if path.name not in {"", ".."} else path.resolve()
    place = asked.parent if is_test_name(asked.parent.name) else asked
    is_judging = is_test_name(place.name) or place.name == QUARANTINE
    folder = asked if asked.is_dir() and not is_judging else place.parent
    root = invocation.root if folder.is_relative_to(invocation.root) else folder
    specs = (folder / invocation.settings.specs).resolve()
    if specs != folder and specs.is_dir():
        if asked != folder:
            raise UsageError(f"{path} is not a spec", hint=f"the specs are in {specs}")
        root, asked = folder, folder / invocation.settings.specs
        folder = asked
    elif asked != folder and not is_judging and not is_spec_name(asked.name):
        raise UsageError(
            f"{path} is not read as a spec",
            hint="hidden files, READMEs and what editors leave behind are left out: rename it",
        )
    inspected = inspect_once(root, folder.relative_to(root).as_posix())
    if asked == folder:
        return inspected
    only = asked.relative_to(root).as_posix()
    asked_for = {name: spec for name, spec in inspected.specs.items() if spec.path == only}
    problems = [p for p in inspected.problems if f"{p.path}/".startswith(f"{only}/")]
    if place.name == QUARANTINE:
        return inspected._replace(problems=problems, files=0)
    return Inspected(asked_for, problems, len(asked_for) or int(not is_judging))


def _print(problems: Sequence[Problem], files: int, form: str, invocation: Invocation) -> None:
    console = invocation.console
    on_github = console.mode is Mode.GITHUB
    if form == "json":
        # lint is run at every save: the documents of repositories take a tenth of a second more.
        from lago_images.cli.answers import LintReport  # noqa: PLC0415
        from lago_images.cli.documents import document  # noqa: PLC0415

        click.echo(document(LintReport(specs=files, problems=tuple(problems))))
    else:
        for problem in problems:
            if on_github:
                click.echo(inert(str(problem)))
            else:
                tell(str(problem))
    # Beside the lines on stdout: the runner reads annotations of both streams, people read lines.
    if on_github:
        for problem in problems:
            console.problem(problem.path, problem.line, problem.what)
    # Where there is no spec at all, the problem says what to do: there is nothing to count.
    if problems and not files:
        return
    specs = "1 spec" if files == 1 else f"{files} specs"
    count = "1 problem" if len(problems) == 1 else f"{len(problems) or 'no'} problems"
    console.info(f"{specs}: {count}")
