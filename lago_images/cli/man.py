"""``lago-images man``: write man pages from the help texts of the commands.

A page a command, such as ``lago-images-repo-show.1``, in the macros of man(7).
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import click

from lago_images.cli.invocation import Invocation
from lago_images.cli.main import INTERRUPTED, PIPE, main
from lago_images.cli.targets import FOLDER

_PROGRAM = "lago-images"
EXITS = (
    ("0", "It is done."),
    ("1", "The work failed."),
    ("2", "Wrong usage, spec or settings."),
    ("3", "There is something to do: ci plan --exit-code alone."),
    (str(INTERRUPTED), "It was interrupted."),
    (str(PIPE), "Whoever read its output went away."),
)


def _pages(
    command: click.Command, parent: click.Context | None, name: str
) -> Iterator[tuple[str, str]]:
    ctx = click.Context(command, parent=parent, info_name=name, **command.context_settings)
    title = ctx.command_path.replace(" ", "-")
    children = {}
    if isinstance(command, click.Group):
        children = {each: command.get_command(ctx, each) for each in command.list_commands(ctx)}
    yield f"{title}.1", "\n".join(_page(ctx, title, children)) + "\n"
    for each, child in children.items():
        if child:
            yield from _pages(child, ctx, each)


def _page(
    ctx: click.Context, title: str, children: Mapping[str, click.Command | None]
) -> Iterator[str]:
    command = ctx.command
    version = metadata.version(_PROGRAM)
    short, _, rest = (command.help or "").partition("\n\n")
    yield f'.TH "{title.upper()}" "1" "" "{_PROGRAM} {version}" "{_PROGRAM}"'
    yield from (".SH NAME", f"{_text(title)} \\- {_text(_joined(short).rstrip('.'))}")
    yield from (".SH SYNOPSIS", f".B {_text(ctx.command_path)}")
    yield _text(" ".join(command.collect_usage_pieces(ctx)))
    if rest.strip():
        yield ".SH DESCRIPTION"
        for paragraph in rest.split("\n\n"):
            yield from (".PP", _text(_joined(paragraph)))
    if children:
        yield ".SH COMMANDS"
        for name, child in children.items():
            yield from (".TP", f".BR {_text(f'{title}-{name}')} (1)")
            yield _text(_joined(((child and child.help) or "").partition("\n\n")[0]))
    yield ".SH OPTIONS"
    for option in command.get_params(ctx):
        record = option.get_help_record(ctx)
        if record and isinstance(option, click.Option):
            yield from (".TP", f".B {_text(record[0])}", _text(_joined(record[1])) or "\\&")
    yield ".SH EXAMPLE"
    example = (command.epilog or "").rpartition("\n")[2].strip()
    yield from (".nf", _text(example), ".fi")
    yield ".SH EXIT STATUS"
    for code, meaning in EXITS:
        yield from (".TP", f".B {code}", meaning)
    if parent := ctx.parent:
        yield ".SH SEE ALSO"
        yield f".BR {_text(parent.command_path.replace(' ', '-'))} (1)"


def _joined(text: str) -> str:
    """Return a paragraph in one line: man fills it."""
    return re.sub(r"\s+", " ", text.replace("\b", "")).strip()


def _text(text: str) -> str:
    """Return text as roff shows it."""
    # A dash that is typed must not become a hyphen, which is another character (groff_char(7)).
    shown = text.replace("\\", "\\e").replace("-", "\\-")
    # A dot or quote at the start of a line would begin a macro.
    return f"\\&{shown}" if shown.startswith((".", "'")) else shown


def write(folder: Path) -> list[str]:
    """Write all pages into a folder, which is made if needed; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for name, text in _pages(main, None, _PROGRAM):
        (folder / name).write_text(text, encoding="utf-8")
        names.append(name)
    return names


@click.command("man")
@click.argument("folder", type=FOLDER)
@click.pass_obj
def man(invocation: Invocation, folder: Path) -> None:
    """Write a man page for each command into a folder.

    They say what --help says. FOLDER is made where it is missing; one that is called man1 in a
    folder that man searches is found by man. The names of the pages are printed.
    """
    for name in write(folder):
        click.echo(name)
    invocation.console.info(f"read one: man {shlex.quote(str(folder / _PROGRAM))}.1")
