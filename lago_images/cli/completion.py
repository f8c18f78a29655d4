"""``lago-images completion``, and the names that a shell completes.

A shell runs the program once a key press: what is offered is read from this machine alone, never
from a bucket, and what cannot be read is no completion.
"""

import sys
from contextlib import suppress
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from lago_images.cli.invocation import Invocation
from lago_images.errors import Error

VARIABLE = "_LAGO_IMAGES_COMPLETE"
_SHELLS = {
    "bash": "~/.local/share/bash-completion/completions/lago-images",
    "zsh": "FOLDER/_lago-images, where FOLDER is one of $fpath",
    "fish": "~/.config/fish/completions/lago-images.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_obj
def completion(invocation: Invocation, shell: str) -> None:
    """Print the script that completes commands, options and names of images in a shell.

    It goes where the shell looks for completions, in a folder that may have to be made first:

    \b
    bash: ~/.local/share/bash-completion/completions/lago-images;
    zsh: FOLDER/_lago-images, where FOLDER is one of $fpath;
    fish: ~/.config/fish/completions/lago-images.fish.
    """  # noqa: D301 -- click's own mark
    kind = get_completion_class(shell)
    if kind is None:
        raise click.BadParameter(f"click knows no shell {shell}")
    command = click.get_current_context().find_root().command
    script = kind(command, {}, "lago-images", VARIABLE)
    # Not source(): that of bash starts bash to ask for its version, and this may run without one.
    click.echo(script.source_template % script.source_vars())
    # Who redirects it has saved it.
    if sys.stdout.isatty():
        invocation.console.info(f"save it: lago-images completion {shell} > {_SHELLS[shell]}")


def spec_names(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of the specs here."""
    return _items(_specs(ctx.obj), incomplete)


def specs_or_paths(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of the specs here; where none fits, the shell completes files."""
    # The first: bash's script forgets what came before it.
    return [CompletionItem(incomplete, type="file"), *_items(_specs(ctx.obj), incomplete)]


def published_names(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of what was published in a directory, else those of the specs here."""
    return _items(_releases(ctx.obj) or _specs(ctx.obj), incomplete)


def _items(names: list[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def _specs(invocation: Invocation) -> list[str]:
    from lago_images.specs.folder import spec_names as read_names  # noqa: PLC0415

    with suppress(Error, OSError):
        return read_names(invocation.root / invocation.settings.specs)
    return []


def _releases(invocation: Invocation) -> list[str]:
    with suppress(Error, OSError):
        url = invocation.settings.repository
        if "://" not in url or url.startswith("file://"):
            folder = invocation.settings.folder / Path(url.removeprefix("file://"))
            return [each.name for each in (folder / "releases").iterdir() if each.is_dir()]
    return []
