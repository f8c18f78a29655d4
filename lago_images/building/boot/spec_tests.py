"""Run a spec's own tests in a guest that has booted, and start it again where one asks for that.

Each is sent through the guest agent's port, runs as root, and is removed again. What it does to the
guest is there for those that follow: they share the guest, and its disk is thrown away at the end.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from lago_images.building.boot.console_signs import Fault
from lago_images.building.boot.guest_agent import ASK, Agent
from lago_images.console import clean
from lago_images.errors import BootError
from lago_images.host.process import Runner
from lago_images.repository.records.guest_tests import GuestTestRecord
from lago_images.specs.model import GuestTest

# Bytes of a test's output that the log has, its last ones; that a record has; and that the record
# of an image has of all its tests: it is in the manifest and in the release.
LOGGED = 16 * 1024
RECORDED = 4 * 1024
RECORDED_IN_ALL = 64 * 1024
# Of a test at once: an answer of the agent stands between two pieces, so that a pipe holds one.
_PIECE = 24 * 1024
_FOLDER = (
    "/bin/sh",
    "-c",
    "mktemp -d /root/.lago-images.XXXXXX 2>/dev/null || mktemp -d /var/tmp/lago-images.XXXXXX",
)


class FailedTestsError(BootError):
    """Raised for tests that failed; ``records`` are those of all tests of the image."""

    def __init__(
        self, message: str, records: Sequence[GuestTestRecord], *, tail: Sequence[str]
    ) -> None:
        hint = "a test that may fail for now is named in the folder of specs, in quarantine.toml"
        super().__init__(message, tail=tail, hint=hint)
        self.records = tuple(records)


class Guest(Protocol):
    """A guest that was started."""

    @property
    def agent(self) -> Agent:
        """Return its guest agent."""

    def wait(self) -> float:
        """Wait until the agent answers; raises ``BootError`` where it does not."""

    def power_off(self, limit: float) -> bool:
        """Shut it down; return whether that took no more than so many seconds."""

    def faults(self) -> Sequence[Fault] | None:
        """Return what its console shows of troubles; None if its kernel does not write there."""

    def photograph(self, picture: Path | None) -> bool:
        """Write its screen into a file, if one is named; return whether that was done."""


class Starter(Protocol):
    """Starts the disk that is tested, once its guest was shut down."""

    def started(self, *, network: bool) -> AbstractContextManager[Guest]:
        """Start it again, with a network or without."""

    def is_starved(self) -> bool:
        """Return whether the emulated processor did not get on, so that a failure means nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTests:
    """The tests of an image.

    Attributes:
        read: Returns the bytes of a test.
        has_network: Whether a test may have a network: the setting.
    """

    tests: tuple[GuestTest, ...]
    read: Callable[[GuestTest], bytes]
    has_network: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """The tests of an image, on a machine.

    Attributes:
        factor: What timeouts are multiplied by: 1 with KVM.
        limit: Seconds that a guest may take to start, and to end.
        picture: Where the screen goes when the first test has failed; None for nowhere.
    """

    tests: OwnTests
    factor: float
    limit: float
    picture: Path | None = None


def run_tests(
    suite: Suite, guest: Guest, starter: Starter, runner: Runner
) -> tuple[GuestTestRecord, ...]:
    """Run every test of a suite, in order, whatever the others do.

    Args:
        suite: The tests.
        guest: A guest without a network, whose agent answers.
        starter: Starts it again.
        runner: Its log gets each test's outcome and output.

    Raises:
        BootError: The guest was lost because its emulated processor did not get on.
    """
    records: list[GuestTestRecord] = []
    with ExitStack() as opened:
        session = _Session(suite, guest, starter, runner, opened)
        for test in suite.tests.tests:
            record = session.run(test)
            _note(record, runner)
            if not record.has_passed and all(earlier.has_passed for earlier in records):
                session.guest.photograph(suite.picture)
            records.append(record)
    most = min(RECORDED, RECORDED_IN_ALL // max(1, len(records)))
    return tuple(_shortened(record, most) for record in records)


@dataclass(slots=True)
class _Session:
    """The guest as it is now: it may be another start of the disk than the test before had."""

    suite: Suite
    guest: Guest
    starter: Starter
    runner: Runner
    opened: ExitStack
    has_network: bool = False
    is_fresh: bool = True
    lost: str = ""
    shown: Sequence[Fault] = ()

    def run(self, test: GuestTest) -> GuestTestRecord:
        if self.lost:
            return GuestTestRecord(name=test.name, problem=f"not run: {self.lost}")
        if test.network and not self.suite.tests.has_network:
            problem = "not run: it needs a network, which the setting network turns off"
            return GuestTestRecord(name=test.name, problem=problem)
        try:
            if test.reboot or test.network != self.has_network:
                self._start_again(network=test.network)
            if self.is_fresh and not self.guest.agent.wait_for_units(self.suite.limit):
                problem = f"not run: systemd was still starting after {self.suite.limit:.0f} s"
                return GuestTestRecord(name=test.name, problem=problem)
            self.is_fresh = False
            return self._with_faults(_run(test, self.guest.agent, self.suite))
        except BootError as error:
            if self.starter.is_starved():
                raise
            self.lost = f"the guest was lost at {test.name}"
            return GuestTestRecord(name=test.name, problem=error.message)

    def _with_faults(self, record: GuestTestRecord) -> GuestTestRecord:
        """Return a test's record: with new faults on the console it has not passed."""
        before, self.shown = self.shown, self.guest.faults() or ()
        new = [clean(str(fault)) for fault in self.shown if fault not in before]
        if not (new and record.has_passed):
            return record
        return replace(record, problem=f"it passed, but the console shows {'; '.join(new)}")

    def _start_again(self, *, network: bool) -> None:
        if not self.guest.power_off(self.suite.limit):
            raise BootError(f"the guest did not shut down within {self.suite.limit:.0f} s")
        self.opened.close()
        self.guest = self.opened.enter_context(self.starter.started(network=network))
        self.guest.wait()
        self.has_network, self.is_fresh, self.shown = network, True, ()


def _run(test: GuestTest, agent: Agent, suite: Suite) -> GuestTestRecord:
    agent.settle(timeout=ASK)
    folder = agent.run(_FOLDER, timeout=ASK).decode(errors="replace").strip()
    program = f"{folder}/{test.name.rpartition('/')[2]}"
    for piece in _pieces(suite.tests.read(test)):
        agent.run(("/bin/sh", "-c", 'cat >>"$1"', "sh", program), timeout=ASK, stdin=piece)
    agent.run(("/bin/sh", "-c", 'chmod 700 "$1"', "sh", program), timeout=ASK)
    seconds = round(test.timeout * suite.factor)
    script = Path(__file__).with_name("run-test.sh").read_text(encoding="utf-8")
    argv = ("/bin/sh", "-c", script, "sh", program, str(seconds), str(LOGGED))
    started = agent.clock()
    answer = agent.run(argv, timeout=seconds + ASK)
    return _record(test, answer, seconds, agent.clock() - started)


def _pieces(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), _PIECE):
        yield content[start : start + _PIECE]


def _record(test: GuestTest, answer: bytes, limit: int, seconds: float) -> GuestTestRecord:
    """Read what ``run-test.sh`` printed."""
    ended, _, rest = answer.partition(b"\n")
    size, _, output = rest.partition(b"\n")
    code = ended.removeprefix(b"exit ")
    is_late = ended == b"late"
    if not (is_late or code.isdigit()):
        raise BootError(f"the guest does not say how the test {test.name} ended")
    left_out = int(size) - len(output) if size.strip().isdigit() else 0
    lines = [clean(line) for line in output.decode(errors="replace").splitlines()]
    if left_out > 0:
        lines = [f"({left_out} bytes before this are left out)", *lines]
    return GuestTestRecord(
        name=test.name,
        seconds=round(seconds, 1),
        exit_code=None if is_late else int(code),
        output="\n".join(lines),
        problem=f"it took longer than {limit} s" if is_late else "",
    )


def _note(record: GuestTestRecord, runner: Runner) -> None:
    runner.note(f"test {record.name}: {record}")
    for line in record.output.splitlines():
        runner.note(f"  {line}")


def _shortened(record: GuestTestRecord, most: int) -> GuestTestRecord:
    """Return a record with the last lines of its output that make at most ``most`` bytes."""
    kept: list[str] = []
    for line in reversed(record.output.splitlines()):
        most -= len(line.encode()) + 1
        if most < 0:
            break
        kept.append(line)
    return replace(record, output="\n".join(reversed(kept)))
