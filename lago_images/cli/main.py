"""The command line's entry: commands are imported when they are called, and errors end here."""

import codecs
import errno
import gc
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import click
from click.shell_completion import CompletionItem

from lago_images.cli.invocation import Invocation, console_for, has_colour, shared_options
from lago_images.console import Console, wrapped
from lago_images.errors import CommandError, Error, ProblemsError
from lago_images.screen import terminal_size
from lago_images.secret_text import without_keys

INTERRUPTED = 130
# 128 and SIGPIPE, as shells say it.
PIPE = 141
_OBJECTS = 100_000
_STREAMS = range(3)
_DO = {
    errno.ENOSPC: "free some space there, or set TMPDIR to a larger file system",
    errno.EDQUOT: "the user's disk quota is used up: free some space, or have it raised",
    errno.EACCES: "check who owns that file and its folders, and their permissions: ls -ld",
    errno.EPERM: "check who owns that file and its folders, and their permissions: ls -ld",
    errno.EROFS: "the file system is mounted read-only: name a folder that can be written",
    errno.ENOTDIR: "a file is in the way of a folder: remove it, or name another folder",
    errno.ENOENT: "check that path: it, or a folder above it, is missing and cannot be made there",
    errno.EMFILE: "raise the limit on open files: ulimit -n 4096",
}


class _Lazy(NamedTuple):
    """A command as ``module:attribute``, its line in the help of its group, and an example."""

    place: str
    short_help: str
    example: str = ""


class LazyGroup(click.Group):
    """Import a command when it is called: some take long."""

    # click takes the short help of each command from the command itself, and so would import all
    # of them, with PyGithub and boto3, for one --help (12 times a bare click program, measured).

    def __init__(self, *args: Any, lazy: Mapping[str, _Lazy], **extra: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **extra)
        self.lazy = dict(lazy)
        self.params.extend(shared_options())

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.lazy, *(name for name in super().list_commands(ctx) if name not in self.lazy)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy or cmd_name in self.commands:
            return super().get_command(ctx, cmd_name)
        lazy = self.lazy[cmd_name]
        # A shell completes; our groups are in this module.
        if ctx.resilient_parsing and not lazy.place.startswith(__name__):
            from lago_images.cli import shape  # noqa: PLC0415

            command = shape.command(cmd_name, lazy.place)
        else:
            command = self.real_command(cmd_name)
        if not isinstance(command, click.Group):
            command.params.extend(shared_options())
        # \b: the line is not wrapped, so that it can be copied.
        command.epilog = f"\b\nExample:\n  {lazy.example}"
        self.add_command(command, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        is_command = name in self.lazy or name.startswith("-")
        if not (is_command or ctx.resilient_parsing):
            raise click.UsageError(f"No such command {name!r}{self._near(ctx, name)}", ctx)
        return super().resolve_command(ctx, args)

    def _near(self, ctx: click.Context, name: str) -> str:
        """Return the command that a wrong name may mean: a group's, or one of a name alike."""
        from lago_images.specs.names import suggestion  # noqa: PLC0415

        for group in self.lazy:
            is_group = self.lazy[group].place.startswith(__name__)
            command = self.get_command(ctx, group) if is_group else None
            if isinstance(command, LazyGroup) and name in command.lazy:
                return f"; did you mean '{group} {name}'?"
        return suggestion(name, self.lazy)

    def real_command(self, name: str) -> click.Command:
        """Import a command."""
        module, _, attribute = self.lazy[name].place.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, self.lazy[name].short_help) for name in self.list_commands(ctx)]
            )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        commands = [
            CompletionItem(name, help=self.lazy[name].short_help)
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]


class _Root(LazyGroup):
    """Turn an error into text and an exit code, here and nowhere else."""

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        **extra: Any,  # noqa: ANN401 -- click's own signature
    ) -> None:
        if args is None:
            _open_closed_streams()
            _speak_utf8()
        environ = dict(os.environ)
        invocation = Invocation(console=console_for(environ), environ=environ)
        invocation.console.completed = invocation.completed
        is_ending = _end_on_signals(invocation.console)
        # Thousands of specs, releases and manifests are kept to the end: to look through them again
        # and again took a fifth of the time of a plan of 10,000 images.
        gc.set_threshold(_OBJECTS)
        # None: click drops colours where stdout is no terminal. It knows nothing of NO_COLOR.
        colour = None if has_colour(environ) else False
        extra = {"color": colour, **extra, "standalone_mode": False}
        try:
            code = super().main(args, prog_name or "lago-images", obj=invocation, **extra)
        except Error as error:
            if invocation.debug:
                traceback.print_exc()
            _show_error(error, invocation.console)
            code = error.exit_code
        except BrokenPipeError:
            # Nobody reads the output any more (``| head``). Python complains when it flushes
            # stdout at its end, so that has to lead somewhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = PIPE
        except OSError as error:
            if invocation.debug:
                traceback.print_exc()
            where = f"{error.filename}: " if error.filename else ""
            hint = _DO.get(error.errno or 0, "--debug shows where that was")
            _show_error(Error(f"{where}{error.strerror or error}", hint=hint), invocation.console)
            code = Error.exit_code
        except click.exceptions.Exit as done:
            code = done.exit_code
        except click.ClickException as error:
            _show_usage_error(error)
            code = error.exit_code
        except (KeyboardInterrupt, click.Abort) as interrupt:
            _show_interruption(interrupt, invocation.console)
            code = INTERRUPTED
        # Ctrl-C is how serve is ended, which is no failure.
        _exit(code, is_interrupted=code == INTERRUPTED or is_ending())


def _show_error(error: Error, console: Console) -> None:
    """Show the error, the program's last lines, its log, and what to do."""
    if isinstance(error, ProblemsError):
        for problem in error.problems:
            console.problem(problem.path, problem.line, problem.what)
    else:
        console.error(f"error: {error.message}")
    if isinstance(error, CommandError):
        for line in error.tail:
            console.output(f"  | {without_keys(line)}")
        if error.log is not None:
            console.info(f"log: {error.log}")
    if error.hint:
        console.hint(error.hint)


def _show_usage_error(error: click.ClickException) -> None:
    """Show click's own error in the width of a terminal: it wraps its helps, and no error."""
    text = io.StringIO()
    error.show(text)
    width = terminal_size(sys.stderr)[0] if sys.stderr.isatty() else None
    for line in text.getvalue().splitlines():
        click.echo("\n".join(wrapped(line, width, indent="  ")), err=True)


def _show_interruption(interrupt: BaseException, console: Console) -> None:
    """Show that the run was ended, and what is to be done next, which it was given as notes."""
    console.error("interrupted")
    # click has an exception of its own for it.
    for advice in getattr(interrupt.__cause__ or interrupt, "__notes__", ()):
        console.info(advice)


def _open_closed_streams() -> None:
    """Open stdin, stdout and stderr on the null device where the caller closed them (``2>&-``)."""
    # The system gives the lowest free number to the next file that is opened: a child would take
    # that file for its stdout (POSIX, open()).
    for number in _STREAMS:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    # Python has no object for a stream that was closed when it started.
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _speak_utf8() -> None:
    """Read arguments and file names and write everything as UTF-8, whatever the locale says."""
    # Specs, git's names and published files are UTF-8. Python decodes its arguments before any code
    # runs, so under another locale the program is started once more in Python's UTF-8 mode:
    # https://docs.python.org/3/using/cmdline.html#envvar-PYTHONUTF8
    if not sys.flags.utf8_mode and codecs.lookup(sys.getfilesystemencoding()).name != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606
    for stream in (sys.stdout, sys.stderr):
        # PYTHONIOENCODING wins over the mode.
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(encoding="utf-8")


def _end_on_signals(console: Console) -> Callable[[], bool]:
    """Let SIGTERM clean up as Ctrl-C does; a second of either ends at once.

    Returns what tells whether one has come.
    """
    # GitHub sends SIGINT, then SIGTERM after 7.5 s, then kills (Canceling a workflow, its docs);
    # Jenkins sends SIGTERM.
    is_ending = False

    def interrupt(_number: int, _frame: object) -> None:
        nonlocal is_ending
        if is_ending:
            _kill_programs()
            os._exit(INTERRUPTED)
        is_ending = True
        # Not by the console, whose lock the interrupted code may hold.
        with suppress(OSError):
            below = b"\n" if console.leave_live() else b""
            os.write(2, below + b"interrupted: ending what runs; once more ends at once\n")
        raise KeyboardInterrupt

    # Python takes handlers in the main thread only, and tests run commands in others.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, interrupt)
    return lambda: is_ending


def _kill_programs() -> None:
    # It is imported where a program was started; a signal's handler imports nothing.
    if process := sys.modules.get("lago_images.host.process"):
        process.Children.kill_all()


def _exit(code: object, *, is_interrupted: bool) -> NoReturn:
    """End the process; after Ctrl-C without the threads that Python would wait for."""
    number = code if isinstance(code, int) else 0
    # Imported where one was started.
    unawaited = sys.modules.get("lago_images.host.threads")
    names = [thread.name for thread in threading.enumerate()]
    if is_interrupted and unawaited and any(n.startswith(unawaited.UNAWAITED) for n in names):
        _kill_programs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(number)
    sys.exit(number)


_COMMANDS = {
    "lint": _Lazy(
        "lago_images.cli.lint:lint",
        "Print every problem of every spec.",
        "lago-images lint image-specs/my-debian-12",
    ),
    "try": _Lazy(
        "lago_images.cli.trial:try_",
        "Build and boot an image without publishing, and leave its disk.",
        "lago-images try my-debian-12",
    ),
    "run": _Lazy(
        "lago_images.cli.trial:run",
        "Start an image on this terminal; what it writes is thrown away.",
        "lago-images run my-debian-12.qcow2",
    ),
    "build": _Lazy(
        "lago_images.cli.build:build",
        "Build images and publish them into a directory.",
        "lago-images build my-debian-12 --repo-dir image-repo",
    ),
    "ci": _Lazy(
        "lago_images.cli.main:ci",
        "Plan, build, publish and report, as CI does.",
        "lago-images ci plan",
    ),
    "repo": _Lazy(
        "lago_images.cli.main:repo",
        "Look after a repository.",
        "lago-images repo list",
    ),
    "serve": _Lazy(
        "lago_images.cli.serve:serve",
        "Serve a repository over HTTP until Ctrl-C.",
        "lago-images serve image-repo",
    ),
    "doctor": _Lazy(
        "lago_images.cli.doctor:doctor",
        "Check what this host lacks, and say what to do about it.",
        "lago-images doctor",
    ),
    "cache": _Lazy(
        "lago_images.cli.main:cache",
        "Look at what builds keep to use again, and clear it.",
        "lago-images cache list",
    ),
    "completion": _Lazy(
        "lago_images.cli.completion:completion",
        "Print the script that completes commands, options and names of images in a shell.",
        "lago-images completion bash > ~/.local/share/bash-completion/completions/lago-images",
    ),
    "man": _Lazy(
        "lago_images.cli.man:man",
        "Write a man page for each command into a folder.",
        "lago-images man ~/.local/share/man/man1",
    ),
    "init": _Lazy(
        "lago_images.cli.init:init",
        "Set up a specs repository: an example spec, settings, workflow, Jenkinsfile.",
        "lago-images init my-specs --repository s3://bucket/images",
    ),
}
_CI_COMMANDS = {
    "plan": _Lazy(
        "lago_images.cli.plan:plan",
        "Show what is affected and why.",
        "lago-images ci plan --base origin/main --exit-code",
    ),
    "build": _Lazy(
        "lago_images.cli.ci:build",
        "Build chains on this host, into builds/ of the repository.",
        "lago-images ci build my-debian-12 --results results --logs logs",
    ),
    "publish": _Lazy(
        "lago_images.cli.ci:publish",
        "Publish what was planned and built, to a bucket or a directory.",
        "lago-images ci publish --plan plan.json --results results",
    ),
    "rebuild": _Lazy(
        "lago_images.cli.ci:rebuild",
        "Plan, build and publish on this machine, to a bucket or a directory.",
        "lago-images ci rebuild --changed --outdated --stale 30",
    ),
    "report": _Lazy(
        "lago_images.cli.ci:report",
        "Report the images' outcomes: on the pull request, in the step summary, else here.",
        "lago-images ci report --plan plan.json --results results --junit junit.xml",
    ),
}
_CACHE_COMMANDS = {
    "list": _Lazy(
        "lago_images.cli.cache:list_",
        "Show what builds keep to use again, and their logs, and how much of it.",
        "lago-images cache list --format json",
    ),
    "clear": _Lazy(
        "lago_images.cli.cache:clear",
        "Remove what builds keep to use again, and their logs.",
        "lago-images cache clear trees packages",
    ),
}
_REPO_COMMANDS = {
    "list": _Lazy(
        "lago_images.cli.browse:list_",
        "List what is published.",
        "lago-images repo list 'debian-*' --state any",
    ),
    "show": _Lazy(
        "lago_images.cli.browse:show",
        "Show all that is known of an image.",
        "lago-images repo show my-debian-12",
    ),
    "log": _Lazy(
        "lago_images.cli.browse:log",
        "Show who released, withdrew and rolled back what, the newest event first.",
        "lago-images repo log my-debian-12 -n 10",
    ),
    "diff": _Lazy(
        "lago_images.cli.diff:diff",
        "Show what changed from one build of an image to another.",
        "lago-images repo diff my-debian-12 3 4",
    ),
    "refresh": _Lazy(
        "lago_images.cli.repo:refresh",
        "Render index, repo.metadata and catalogue again from what is in the repository.",
        "lago-images repo refresh",
    ),
    "verify": _Lazy(
        "lago_images.cli.repo:verify",
        "Check a repository as its clients see it.",
        "lago-images repo verify https://images.example.org --format json",
    ),
    "provenance": _Lazy(
        "lago_images.cli.provenance:provenance",
        "Follow an image from the commit of its spec to the bytes of its disk.",
        "lago-images repo provenance my-debian-12 --key key.asc --deep",
    ),
    "reproduce": _Lazy(
        "lago_images.cli.reproduce:reproduce",
        "Build a published revision again, and tell whether it has the same bytes.",
        "lago-images repo reproduce my-debian-12 --revision 3",
    ),
    "gc": _Lazy(
        "lago_images.cli.repo:gc",
        "Remove what retention lets go.",
        "lago-images repo gc --apply",
    ),
    "accept-loss": _Lazy(
        "lago_images.cli.losses:accept_loss",
        "Accept that release records of an image are lost for good.",
        "lago-images repo accept-loss my-debian-12 --revision 3 --reason 'no copy is left'",
    ),
    "yank": _Lazy(
        "lago_images.cli.withdrawals:yank",
        "Withdraw a revision of an image, and all others of the same build.",
        "lago-images repo yank my-debian-12 --reason 'it does not boot on KVM'",
    ),
    "rollback": _Lazy(
        "lago_images.cli.withdrawals:rollback",
        "Publish the build of an older revision of an image again, under a new revision.",
        "lago-images repo rollback my-debian-12 --to 3 --reason 'the new kernel'",
    ),
}


@click.group(
    cls=_Root,
    lazy=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  lago-images build && lago-images serve image-repo",
)
@click.version_option(package_name="lago-images")
def main() -> None:
    """Turn VM image specs in git into a published repository for virt-builder and lago."""


@click.group(cls=LazyGroup, lazy=_CI_COMMANDS)
def ci() -> None:
    """Plan, build, publish and report, as CI does."""


@click.group(cls=LazyGroup, lazy=_CACHE_COMMANDS)
def cache() -> None:
    """Look at what builds keep on this machine to use again, and clear it."""


@click.group(cls=LazyGroup, lazy=_REPO_COMMANDS)
def repo() -> None:
    """Look after a repository."""
