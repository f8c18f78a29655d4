"""The options and arguments of each command as data, for shells that complete them.

A shell starts the program once a key press, and to import a command takes ten times as long as to
read this. ``python -m lago_images.cli.shape`` writes ``shape.json`` anew from the commands.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from lago_images.cli import completion
from lago_images.cli.invocation import shared_options

FILE = "shape.json"
_COMPLETERS = {
    each.__name__: each
    for each in (completion.spec_names, completion.specs_or_paths, completion.published_names)
}


def command(name: str, place: str) -> click.Command:
    """Return a command that can only be completed, of the code at ``module:attribute``."""
    shapes = json.loads(Path(__file__).with_name(FILE).read_bytes())
    return click.Command(name, params=[_param(shape) for shape in shapes[place]])


def described(real: click.Command) -> list[dict[str, Any]]:
    """Return what completion needs to know of a command's own options and arguments."""
    shared = [option.opts for option in shared_options()]
    return [_shape(param) for param in real.params if param.opts not in shared]


def _shape(param: click.Parameter) -> dict[str, Any]:
    completer = getattr(param, "_custom_shell_complete", None)
    shape = {
        "names": [*param.opts, *param.secondary_opts],
        "argument": isinstance(param, click.Argument),
        "flag": getattr(param, "is_flag", False),
        "nargs": param.nargs,
        "multiple": param.multiple,
        "choices": list(param.type.choices) if isinstance(param.type, click.Choice) else [],
        "path": [param.type.file_okay, param.type.dir_okay]
        if isinstance(param.type, click.Path)
        else [],
        "completer": completer.__name__ if completer else "",
        "help": getattr(param, "help", None) or "",
    }
    # What most params are not is left out.
    plain = {"argument": False, "flag": False, "nargs": 1, "multiple": False, "help": ""}
    return {k: v for k, v in shape.items() if v not in ([], "") and plain.get(k) != v}


def _param(shape: Mapping[str, Any]) -> click.Parameter:
    kind: click.ParamType[Any] = click.STRING
    if choices := shape.get("choices"):
        kind = click.Choice(choices)
    elif path := shape.get("path"):
        kind = click.Path(file_okay=path[0], dir_okay=path[1])
    completer = _COMPLETERS.get(shape.get("completer", ""))
    if shape.get("argument"):
        nargs = shape.get("nargs", 1)
        return click.Argument(shape["names"], nargs=nargs, type=kind, shell_complete=completer)
    return click.Option(
        shape["names"],
        is_flag=shape.get("flag", False),
        multiple=shape.get("multiple", False),
        type=None if shape.get("flag") else kind,
        help=shape.get("help"),
        shell_complete=completer,
    )


def rendered() -> str:
    """Return the file for the commands as they are."""
    from lago_images.cli.main import LazyGroup, main  # noqa: PLC0415 -- it imports this

    shapes: dict[str, list[dict[str, Any]]] = {}
    groups: list[click.Command] = [main]
    while groups:
        group = groups.pop()
        assert isinstance(group, LazyGroup)  # noqa: S101 -- all of ours are
        for name, lazy in group.lazy.items():
            real = group.real_command(name)
            if isinstance(real, click.Group):
                groups.append(real)
            else:
                shapes[lazy.place] = described(real)
    return json.dumps(shapes, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name(FILE).write_text(rendered(), encoding="utf-8")
