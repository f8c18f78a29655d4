"""Build chains of images: a layer after its base, chains side by side, failures kept apart."""

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait  # noqa: TID251
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from lago_images.building.bases import layer
from lago_images.building.bases.prepared import FinishedBase
from lago_images.building.board import Board
from lago_images.building.image import finish, reserved, store
from lago_images.building.job import Finished, Job
from lago_images.building.model import Context, Request, Result
from lago_images.building.outcome import described, ended_tests, for_the_log, keep, last_lines
from lago_images.building.progress import Progress
from lago_images.building.reservations import Machine, Reservations, this_machine
from lago_images.host import kvm
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Children
from lago_images.host.threads import POLL, UNAWAITED
from lago_images.host.workdir import default_scratch, workdir
from lago_images.repository.records.manifest import BaseRecord, Manifest
from lago_images.repository.records.state import StoredBuild
from lago_images.specs.model import BaseKind

# Seconds that chains have to end when the run is.
_MOMENT = 0.7
# The prefix of the names of the threads that start programs.
_THREADS = f"{UNAWAITED}-chain"


def build_chains(
    chains: Sequence[Sequence[Request]],
    context: Context,
    *,
    accel: Acceleration,
    jobs: int,
    goal: str = "",
) -> list[Result]:
    """Build chains, ``jobs`` at a time.

    A layer begins when its base's disk is finished. An image that fails takes its layers with it,
    also those at work, and no one else. On Ctrl-C every program is ended, and every work directory
    removed before ``KeyboardInterrupt`` is passed on; but what does not end in a moment, as a
    request to a store that does not answer, is left running.

    Args:
        chains: In each, an image comes after the one it stands on.
        context: Where and with what.
        accel: What guests run on here.
        jobs: How many chains are worked on at once.
        goal: The image that the others of its chain are built for, and stopped when it has failed;
            empty where each is wanted for itself.

    Returns:
        How each image ended, in the order given.

    Raises:
        HostError: Working KVM is required and not there, or no work directory can be made.
    """
    _announce_acceleration(context, accel)
    run = _Run(
        context=context,
        accel=accel,
        goal=goal,
        children=Children(),
        reservations=Reservations(),
        machine=this_machine(),
        board=Board(sum(map(len, chains)), context.clock),
    )
    return _build_all(chains, run, jobs)


def _build_all(chains: Sequence[Sequence[Request]], run: "_Run", jobs: int) -> list[Result]:
    """Build chains side by side; end all that they started where the run is ended."""
    pool, context = ThreadPoolExecutor(jobs, thread_name_prefix=_THREADS), run.context
    context.console.interrupt = run.children.check
    try:
        with context.console.live(run.board.lines):
            futures = [pool.submit(_build_chain, each, run, grouped=jobs == 1) for each in chains]
            results = _results(futures)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        run.children.end()
        if _are_left():
            context.console.warn("a work directory is left, which the next run removes")
        raise
    else:
        pool.shutdown()
        return results
    finally:
        context.console.interrupt = None


def _results(chains: Sequence[Future[list[Result]]]) -> list[Result]:
    """Wait for chains; return how their images ended, or raise what ended one before its end."""
    while (seen := wait(chains, POLL, FIRST_EXCEPTION)).not_done:
        if any(chain.exception() for chain in seen.done):
            break
    return [result for chain in chains for result in chain.result()]


def _are_left() -> bool:
    """Wait a moment for the threads of chains to end; return whether one is still at work."""
    # The threads, and not their futures: a signal may come when a thread was started, and its
    # future is not known yet.
    deadline = time.monotonic() + _MOMENT
    threads = [each for each in threading.enumerate() if each.name.startswith(_THREADS)]
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    return any(thread.is_alive() for thread in threads)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Hold what the chains of a run share."""

    context: Context
    accel: Acceleration
    goal: str
    children: Children
    reservations: Reservations
    machine: Machine
    board: Board


@dataclass(slots=True, kw_only=True, eq=False)
class _Image:
    """An image under way.

    Attributes:
        base: The image that it stands on, where this run builds that.
        folder: Has its disk, as long as somebody reads that, its log and its work.
        users: Who reads the disk: the image itself until it is stored, and layers to come.
        opened: What is closed when it has ended.
    """

    request: Request
    base: "_Image | None"
    folder: Path
    job: Job
    users: set[str]
    opened: ExitStack
    start_time: float
    finished: Finished | None = None
    manifest: Manifest | None = None

    @property
    def name(self) -> str:
        return self.request.spec.name

    @property
    def disk(self) -> Path:
        return self.folder / "disk.qcow2"

    def as_base(self) -> FinishedBase:
        """Return what a layer of this run stands on."""
        return FinishedBase(
            name=self.name,
            disk=self.disk,
            fingerprint=self.request.fingerprint,
        )

    def base_record(self) -> BaseRecord:
        """Return what the disk stands on; a base of this run is recorded by now."""
        assert self.finished  # noqa: S101 -- it is stored after that
        known = self.finished.prepared.record
        if known is not None:
            return known
        assert self.base and self.base.manifest  # noqa: S101, PT018 -- what failed has no layers
        below = self.base.manifest
        stored = StoredBuild(manifest=below, folder=below.key.staging)
        return layer.record(self.request.spec, stored)


@dataclass(slots=True, kw_only=True)
class _Chain:
    """A chain under way.

    Its own thread makes the disks, one after the other. A second one stores what is finished, in
    the same order: so nothing of a layer is in the store before its base is recorded.
    """

    run: _Run
    folder: Path
    requests: Sequence[Request]
    storing: ThreadPoolExecutor
    images: dict[str, _Image] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    _stored: list[Future[None]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def build(self) -> list[Result]:
        """Build every image; return how each ended."""
        for request in self.requests:
            self._begin(request)
        for future in self._stored:
            future.result()
        return [self.results[request.spec.name] for request in self.requests]

    def _begin(self, request: Request) -> None:
        """Make an image's disk, and have it stored while the next one is made."""
        image = self._opened(request)
        if image is None:
            return
        try:
            image.job.folder.mkdir(parents=True)
            image.opened.enter_context(reserved(image.job, self.run.reservations))
            finished = finish(image.job)
            image.finished = replace(finished, disk=finished.disk.rename(image.disk))
            # Whoever waits for disk space may wait for this image from now on.
            image.opened.enter_context(self.run.reservations.worker())
        except (Exception, KeyboardInterrupt) as failure:  # noqa: BLE001 -- it stays one failure
            self._end(image, failure)
        else:
            self._stored.append(self.storing.submit(self._store, image))
        finally:
            self._leave(image.base, image.name)

    def _store(self, image: _Image) -> None:
        assert image.finished  # noqa: S101 -- it was submitted after that
        try:
            image.job.children.check()
            image.manifest = store(image.job, image.finished, image.base_record())
        except (Exception, KeyboardInterrupt) as failure:  # noqa: BLE001 -- it stays one failure
            self._end(image, failure)
        else:
            self._end(image, None)

    def _opened(self, request: Request) -> _Image | None:
        """Take an image up, unless its base has failed."""
        spec = request.spec
        base = self.images.get(spec.base.name) if spec.base.kind is BaseKind.LAYER else None
        below = spec.base.name if spec.base.kind is BaseKind.LAYER else ""
        with self._lock:
            if not self._has_failed(below):
                image = self.images[spec.name] = self._new(request, base)
                return image
        self.run.context.console.warn(f"{spec.name}: not built, because its base {below} failed")
        self.run.board.skip()
        self.results[spec.name] = Result(
            name=spec.name, arch=spec.arch, manifest=None, seconds=0, skipped=below
        )
        self._leave(base, spec.name)
        return None

    def _new(self, request: Request, base: _Image | None) -> _Image:
        spec, run = request.spec, self.run
        children, opened, folder = Children(run.children), ExitStack(), self.folder / spec.name
        row = opened.enter_context(run.board.row(spec.name, request.expected))
        console = run.context.console.metered(row.measure)
        console.interrupt = children.check
        context = replace(run.context, console=console)
        log = folder / "image.log"
        progress = Progress(name=spec.name, console=console, clock=context.clock, log=log, row=row)
        job = Job(
            request=request,
            context=context,
            accel=run.accel,
            folder=folder / "work",
            base=base.as_base() if base else request.base,
            children=children,
            machine=run.machine,
            progress=progress,
        )
        return _Image(
            request=request,
            base=base,
            folder=folder,
            job=job,
            users={spec.name, *self._layers_on(spec.name)},
            opened=opened,
            start_time=context.clock(),
        )

    def _layers_on(self, name: str) -> Iterator[str]:
        for request in self.requests:
            base = request.spec.base
            if base.kind is BaseKind.LAYER and base.name == name:
                yield request.spec.name

    def _has_failed(self, name: str) -> bool:
        ended = self.results.get(name)
        return ended is not None and not ended.ok

    def _end(self, image: _Image, failure: Exception | KeyboardInterrupt | None) -> None:
        """Conclude an image; one that failed stops what is at work on it, or for it."""
        stopped = self._stopped_by(image) if failure is not None else ""
        try:
            if isinstance(failure, KeyboardInterrupt) and not stopped:
                raise failure
            if isinstance(failure, Exception) and not stopped:
                # The disk that its log is on may be full.
                with suppress(OSError):
                    image.job.progress.note(for_the_log(failure))
        finally:
            shutil.rmtree(image.job.folder, ignore_errors=True)
            context = self.run.context
            log = keep(image.job.log, f"{image.name}.log", context)
            keep(image.job.console_log, f"{image.name}.console.log", context)
            keep(image.job.screenshot, f"{image.name}.png", context)
            # Before its disk space is given back: whoever waits for that looks at what is free.
            self._leave(image, image.name)
            image.opened.close()
        result = self._result(image, failure, log, stopped=stopped)
        self._tell(result)
        with self._lock:
            self.results[image.name] = result
            others = () if result.ok else self.images.values()
            is_goal = image.name == self.run.goal
            at_work = [each for each in others if each.base is image or is_goal]
        for each in at_work:
            each.job.children.end()

    def _stopped_by(self, image: _Image) -> str:
        """Return the image whose failure has stopped this one; empty for none."""
        above = (image.base.name if image.base else "", self.run.goal)
        with self._lock:
            return next(
                (each for each in above if each != image.name and self._has_failed(each)), ""
            )

    def _tell(self, result: Result) -> None:
        """Tell of a failure as soon as there is one, for the run may go on for long."""
        console = self.run.context.console
        if result.skipped:
            console.warn(f"{result.name}: stopped, because {result.skipped} failed")
        elif not result.ok:
            console.error(result.failure)
            if result.log:
                console.info(f"{result.name}: log: {result.log}")

    def _result(
        self,
        image: _Image,
        failure: Exception | KeyboardInterrupt | None,
        log: Path | None,
        *,
        stopped: str,
    ) -> Result:
        spec, progress = image.request.spec, image.job.progress
        failed = failure if isinstance(failure, Exception) and not stopped else None
        return Result(
            name=spec.name,
            arch=spec.arch,
            manifest=image.manifest,
            seconds=self.run.context.clock() - image.start_time,
            step=progress.step if failed else "",
            error=described(failed) if failed else "",
            tail=last_lines(failed),
            tests=ended_tests(failed),
            skipped=stopped,
            log=log,
            start_time=image.start_time,
            expected=image.request.expected,
            times=tuple(progress.times),
        )

    def _leave(self, image: _Image | None, user: str) -> None:
        """Remove the disk of an image when its last user leaves it."""
        if image is None:
            return
        with self._lock:
            image.users.discard(user)
            is_needed = bool(image.users)
        if not is_needed:
            shutil.rmtree(image.folder, ignore_errors=True)


def _build_chain(requests: Sequence[Request], run: _Run, *, grouped: bool) -> list[Result]:
    console, scratch = run.context.console, default_scratch(run.context.environ)
    names = ", ".join(request.spec.name for request in requests)
    title = f"build {names} ({requests[0].spec.arch})"
    with (
        run.reservations.worker(),
        workdir(scratch, console) as folder,
        console.group(title) if grouped else nullcontext(),
        ThreadPoolExecutor(1, thread_name_prefix=f"{_THREADS}-storing") as storing,
    ):
        return _Chain(run=run, folder=folder, requests=requests, storing=storing).build()


def _announce_acceleration(context: Context, accel: Acceleration) -> None:
    if context.settings.require_kvm:
        kvm.demand(accel)
    if accel.why:
        why = accel.why.rstrip(".")
        context.console.warn(
            f"KVM DOES NOT WORK HERE: {why}. Guests run by emulation without KVM (TCG), which "
            f"takes several times as long. To change that: {kvm.hint(accel)}"
        )
