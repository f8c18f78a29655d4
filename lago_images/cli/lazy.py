"""Groups that import a command when it is called: boto3 and PyGithub take long to import."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from lago_images.cli.common import shared_options


class LazyGroup(click.Group):
    """A group whose commands are named as ``module:attribute``."""

    def __init__(self, *args: Any, lazy: Mapping[str, str], **extra: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **extra)
        self.lazy = dict(lazy)
        self.params.extend(shared_options())

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.lazy, *(name for name in super().list_commands(ctx) if name not in self.lazy)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.lazy and cmd_name not in self.commands:
            module, _, attribute = self.lazy[cmd_name].partition(":")
            command: click.Command = getattr(import_module(module), attribute)
            if not isinstance(command, click.Group):
                command.params.extend(shared_options())
            self.add_command(command, cmd_name)
        return super().get_command(ctx, cmd_name)
