"""Runs the ``console`` blocks of a document as a reader would, and compares what is shown.

A line that starts with ``$`` is a command, one with ``>`` goes on with it, and the others are its
output. A line of ``…`` stands for any lines, and ``…`` in a line for the rest of
it. Nothing of a tutorial stands here a second time.
"""

import os
import re
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ANY = "…"
# What differs from run to run and from machine to machine, for both what is shown and what is got.
VARIES: tuple[tuple[str, str], ...] = (
    (r"^warning: KVM DOES NOT WORK HERE.*\n", ""),  # without it all else is the same, and slower
    (r"\b[0-9A-F]{40}\b", "FINGERPRINT"),
    (r"\bcommit [0-9a-f]{7}\b", "commit COMMIT"),
    (r"\b[0-9a-f]{64}\b", "SHA256"),
    (r"\b[0-9a-f]{12,40}\b", "COMMIT"),
    (r"\b\d{8}T\d{6}Z-[0-9a-f]{8}-[0-9a-f]{8}\b", "BUILD"),
    (r"\b\d{4}-\d\d-\d\d( \d\d:\d\dZ?)?", "DATE"),
    (r"\b\d+(\.\d+)? ([KMGT]i)?B\b", "SIZE"),
    (r"\b\d+(\.\d+)? (s|min|seconds|minutes?)\b", "TIME"),
    (r"\b\d+ packages\b", "NUMBER packages"),
    (r"\b\w[\w.-]*@[\w.-]+(?= |$)", "USER"),
    (r"[ \t]{2,}", "  "),  # the columns of a table are as wide as what is in them
    (r"-{3,}", "---"),
    (r"[ \t]+$", ""),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A command of a document, with the output that is shown for it."""

    command: str
    shown: tuple[str, ...]


def steps(text: str) -> list[Step]:
    """The commands of a document, in order."""
    found: list[Step] = []
    for block in _BLOCK.findall(text):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Step(command=line[2:], shown=()))
            elif line.startswith("> ") or line == ">":
                last = found.pop()
                found.append(Step(command=f"{last.command}\n{line[2:]}", shown=()))
            else:
                last = found.pop()
                found.append(Step(command=last.command, shown=(*last.shown, line)))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A shell in a home of its own, where the commands of a document are run one by one.

    Attributes:
        instead: By how a command begins, what is done in its place: it gets the command, and
            returns what it printed.
        elsewhere: Commands that cannot be run here, each with why.
        same: Texts of this run, such as a port, with what the document has for them.
        after: By how a command begins, what is done when it has ended.
    """

    home: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    instead: Mapping[str, Callable[[str], str]] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    same: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, Callable[[], None]] = field(default_factory=dict)

    def run(self, document: Path) -> None:
        """Run all commands of a document; raises ``AssertionError`` at the first that differs."""
        with self._shell() as shell:
            try:
                for step in steps(document.read_text(encoding="utf-8")):
                    self._step(shell, step)
            finally:
                shell.stdin.close()
                # What a step that differs left in the background, such as a server, holds its port.
                with suppress(ProcessLookupError):
                    os.killpg(shell.pid, signal.SIGTERM)
                shell.wait(60)

    def _step(self, shell: subprocess.Popen[str], step: Step) -> None:
        if step.command in self.elsewhere:
            return
        command = step.command
        for text, shown in self.same.items():
            command = command.replace(shown, text)
        begins = step.command.startswith
        replaced = next((do for start, do in self.instead.items() if begins(start)), None)
        output = replaced(command) if replaced else self._command(shell, command)
        for text, shown in self.same.items():
            output = output.replace(text, shown)
        problem = difference(step.shown, output)
        assert not problem, f"$ {step.command}\n{problem}"
        for start, do in self.after.items():
            if begins(start):
                do()

    def _command(self, shell: subprocess.Popen[str], command: str) -> str:
        end = f"@{uuid.uuid4()}"
        shell.stdin.write(f"{command}\nprintf '\\n{end} %s\\n' $?\n")
        shell.stdin.flush()
        lines: list[str] = []
        for line in shell.stdout:
            if line.startswith(end):
                output = "".join(lines).removesuffix("\n")
                assert line.split()[1] == "0", f"$ {command}\n{output}"
                return output
            lines.append(line)
        raise AssertionError(f"$ {command}\nthe shell ended: {''.join(lines)}")

    def _shell(self) -> subprocess.Popen[str]:
        kept = ("LANG", "TMPDIR", "LIBGUESTFS_BACKEND", "LIBGUESTFS_BACKEND_SETTINGS")
        return subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=self.home,
            env={
                **{name: os.environ[name] for name in kept if name in os.environ},
                "HOME": str(self.home),
                "LC_ALL": "C.UTF-8",
                # In one stream with what is said on stderr, as on a terminal.
                "PYTHONUNBUFFERED": "1",
                **self.environ,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )


def difference(shown: tuple[str, ...], output: str) -> str:
    """Say how a command's output differs from what is shown; empty when it does not."""
    wanted = [plain(line) for line in "\n".join(shown).splitlines()]
    got = plain(output).splitlines()
    pattern = "".join(
        "(?:.*\n)*?" if line == _ANY else ".*".join(map(re.escape, line.split(_ANY))) + "\n"
        for line in wanted
    )
    if re.fullmatch(pattern, "".join(f"{line}\n" for line in got)):
        return ""
    return "\n".join(["--- shown", *wanted, "--- got", *output.splitlines(), "--- that is", *got])


def plain(text: str) -> str:
    """A text without what varies."""
    for pattern, word in VARIES:
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return text


def beginning(document: Path) -> str:
    """What a document says before its first step."""
    return document.read_text(encoding="utf-8").partition("\n## 1. ")[0]


def commands(document: Path) -> Iterator[str]:
    """Every command of a document."""
    return (step.command for step in steps(document.read_text(encoding="utf-8")))
