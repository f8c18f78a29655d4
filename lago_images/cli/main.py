"""The command line's entry: the commands, imported when called, and where every error ends up."""

import gc
import locale
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import click

from lago_images.cli.invocation import Invocation, console_for, shared_options
from lago_images.console import Console
from lago_images.errors import CommandError, Error, ProblemsError

INTERRUPTED = 130
# 128 and SIGPIPE, as shells say it.
PIPE = 141
_OBJECTS = 100_000


class _LazyGroup(click.Group):
    """Import a command, named as ``module:attribute``, when it is called: some take long."""

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


class _Root(_LazyGroup):
    """Turns an error into text and an exit code, here and nowhere else."""

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        **extra: Any,  # noqa: ANN401 -- click's own signature
    ) -> None:
        if args is None:
            _use_utf8()
        environ = dict(os.environ)
        invocation = Invocation(console=console_for(environ), environ=environ)
        _end_on_sigterm()
        _collect_rarely()
        extra = {**extra, "standalone_mode": False}
        try:
            code = super().main(args, prog_name or "lago-images", obj=invocation, **extra)
        except Error as error:
            _trace(invocation)
            _show_error(error, invocation.console)
            code = error.exit_code
        except BrokenPipeError:
            code = _reader_gone()
        except OSError as error:
            _trace(invocation)
            _show_error(_refused(error), invocation.console)
            code = Error.exit_code
        except click.exceptions.Exit as done:
            code = done.exit_code
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except (KeyboardInterrupt, click.Abort):
            invocation.console.error("interrupted")
            code = INTERRUPTED
        sys.exit(code if isinstance(code, int) else 0)


def _use_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale has another encoding.

    Specs, paths and what a terminal or a file gets are UTF-8, whatever ``LC_ALL`` says: a letter
    that Latin-1 writes in one byte would get into an image as that byte.
    """
    if not sys.flags.utf8_mode and locale.getencoding().lower() not in {"utf-8", "utf8"}:
        # Encodes the arguments as they were decoded: the same bytes. -P, or what lies in this
        # folder, a stranger's specs, would be imported.
        own = [sys.executable, "-P", "-X", "utf8", "-m", "lago_images", *sys.argv[1:]]
        os.execve(sys.executable, own, {**os.environ, "PYTHONUTF8": "1"})  # noqa: S606 -- ourselves


def _trace(invocation: Invocation) -> None:
    if invocation.debug:
        traceback.print_exc()


def _show_error(error: Error, console: Console) -> None:
    """Show what was wrong, the program's last words, where the log is, and what to do."""
    if isinstance(error, ProblemsError):
        for problem in error.problems:
            console.problem(problem.path, problem.line, problem.what)
    else:
        console.error(f"error: {error.message}")
    if isinstance(error, CommandError):
        for line in error.tail:
            console.output(f"  | {line}")
        if error.log is not None:
            console.info(f"log: {error.log}")
    if error.hint:
        console.info(f"hint: {error.hint}")


def _refused(error: OSError) -> Error:
    """Tell what the operating system refused, with the file it is about."""
    where = f"{error.filename}: " if error.filename else ""
    return Error(f"{where}{error.strerror or error}", hint="--debug shows where that was")


def _reader_gone() -> int:
    """End as a program does whose output nobody reads any more (``| head``)."""
    # Else Python complains when it flushes stdout at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE


def _collect_rarely() -> None:
    """Look for garbage after more objects than Python does by itself.

    Thousands of specs, releases and manifests are kept to the end: to look through them again and
    again took a fifth of the time of a plan of 10,000 images.
    """
    gc.set_threshold(_OBJECTS)


def _end_on_sigterm() -> None:
    """Let SIGTERM (a cancelled CI job) clean up as Ctrl-C does."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)


_COMMANDS = {
    "lint": "lago_images.cli.lint:lint",
    "build": "lago_images.cli.build:build",
    "ci": "lago_images.cli.main:ci",
    "repo": "lago_images.cli.main:repo",
    "serve": "lago_images.cli.serve:serve",
    "doctor": "lago_images.cli.doctor:doctor",
    "init": "lago_images.cli.init:init",
}
_CI_COMMANDS = {
    "plan": "lago_images.cli.ci:plan",
    "build": "lago_images.cli.ci:build",
    "publish": "lago_images.cli.ci:publish",
    "rebuild": "lago_images.cli.ci:rebuild",
    "report": "lago_images.cli.ci:report",
}
_REPO_COMMANDS = {
    "list": "lago_images.cli.repo:list_",
    "refresh": "lago_images.cli.repo:refresh",
    "verify": "lago_images.cli.repo:verify",
    "gc": "lago_images.cli.repo:gc",
    "yank": "lago_images.cli.withdrawals:yank",
    "rollback": "lago_images.cli.withdrawals:rollback",
}


@click.group(cls=_Root, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lago-images")
def main() -> None:
    """Turn VM image specs in git into a published repository for virt-builder and lago."""


@click.group(cls=_LazyGroup, lazy=_CI_COMMANDS)
def ci() -> None:
    """What CI runs: plan, build, publish, report; or all of it here."""


@click.group(cls=_LazyGroup, lazy=_REPO_COMMANDS)
def repo() -> None:
    """Look after a repository."""
