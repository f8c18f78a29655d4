"""Reach a guest's files from the sandbox: by paths in its root, and by paths of the sandbox.

A part of the agent, which runs by itself.
"""

import json
import os
import stat
import subprocess
from collections.abc import Callable
from typing import Any

SYSROOT = "/sysroot"
# These are mounts while programs run, and the guest's own folders for libguestfs's other calls; the
# plan adds the EFI system partition's.
MOUNTS = ["/dev", "/proc", "/sys"]
_DEEPEST_LINKS = 40


class CommandFailedError(Exception):
    """A command failed, as it would have in the appliance."""


class UnsupportedError(Exception):
    """A command would mean something else here than in the appliance."""


def inside(action: Callable[[], Any]) -> Any:  # noqa: ANN401
    """Return what ``action`` returns when the guest's tree is the root: of JSON's types."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answer: dict[str, Any]
        try:
            os.chroot(SYSROOT)
            os.chdir("/")
            answer = {"value": action()}
        except OSError as error:
            answer = {"errno": error.errno, "text": f"{error.filename or ''}: {error.strerror}"}
        except (CommandFailedError, UnsupportedError) as error:
            answer = {"kind": type(error).__name__, "text": str(error)}
        except BaseException as error:  # noqa: BLE001 -- this process must not go on as its parent
            answer = {"kind": "UnsupportedError", "text": repr(error)}
        with os.fdopen(writing, "w") as file:
            json.dump(answer, file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    os.waitpid(child, 0)
    if not text:
        raise UnsupportedError("a step in the sandbox was ended")
    answer = json.loads(text)
    if "errno" in answer:
        raise CommandFailedError(answer["text"])
    if answer.get("kind") == "UnsupportedError":
        raise UnsupportedError(answer["text"])
    if "kind" in answer:
        raise CommandFailedError(answer["text"])
    return answer["value"]


def resolved(path: str) -> str:
    """Return a guest's path without links, as seen in the guest; the last part may be missing."""
    if not path.startswith("/") or "\0" in path:
        raise UnsupportedError(f"{path!a} is no absolute path")
    parts, real, links = [part for part in path.split("/") if part], "", 0
    while parts:
        part = parts.pop(0)
        if part in {".", ".."}:
            real = real if part == "." else real.rpartition("/")[0]
            continue
        try:
            target = os.readlink(f"{SYSROOT}{real}/{part}")
        except OSError:
            real = f"{real}/{part}"
            continue
        links += 1
        if links > _DEEPEST_LINKS:
            raise CommandFailedError(f"{path}: Too many levels of symbolic links")
        parts = [name for name in target.split("/") if name] + parts
        real = "" if target.startswith("/") else real
    return real or "/"


def own(path: str) -> str:
    """Return ``path`` where it is a file of the guest's own, for calls that enter its root."""
    real = resolved(path)
    if real == "/" or any(f"{real}/".startswith(f"{mount}/") for mount in MOUNTS):
        raise UnsupportedError(f"{path} is not of the guest's own files")
    return path


def outside(path: str) -> str:
    """Return a guest's path below /sysroot, for what libguestfs does outside of the guest's root.

    There the links in it lead elsewhere, unless they are relative and stay inside.
    """
    own(path)
    parts, real, links = [part for part in path.split("/") if part], "", 0
    while parts:
        part = parts.pop(0)
        if part == "..":
            raise UnsupportedError(f"{path} has .. in it")
        here = f"{real}/{part}"
        if not os.path.islink(SYSROOT + here) or not (parts or path.endswith("/")):
            real = here
            continue
        target, links = os.readlink(SYSROOT + here), links + 1
        if target.startswith("/") or links > _DEEPEST_LINKS:
            raise UnsupportedError(f"{here} is a link that leads elsewhere")
        parts = [name for name in target.split("/") if name] + parts
    return SYSROOT + path


def outside_real(path: str) -> str:
    """Return as ``outside`` does; the path's last part may be no link, either."""
    here = outside(path)
    if os.path.islink(here.rstrip("/")):
        raise UnsupportedError(f"{path} is a link")
    return here


def host(*argv: str, env: dict[str, str] | None = None) -> None:
    """Run a program of the host's, as guestfsd does."""
    # The agent's own standard input and output are its channel.
    done = subprocess.run(
        argv,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise CommandFailedError(done.stderr.decode(errors="replace").strip() or argv[0])


def write(path: str, data: bytes, flags: int = os.O_TRUNC) -> None:
    """Write to a path in the guest's root; run inside."""
    options = os.O_WRONLY | os.O_CREAT | os.O_NOCTTY | os.O_NONBLOCK | flags
    target = os.open(path, options, 0o666)
    with os.fdopen(target, "wb") as file:
        file.write(data)


def exists(path: str) -> bool:
    return os.access(path, os.F_OK)


def is_plain(path: str, kind: Callable[[int], bool] = stat.S_ISREG) -> bool:
    """Tell whether a path in the guest's root is of a kind; a link is not followed."""
    try:
        return kind(os.lstat(path).st_mode)
    except OSError:
        return False


def enter() -> None:
    """Make the guest's tree the root, as a command has it."""
    os.chroot(SYSROOT)
    os.chdir("/")
    os.umask(0o022)
