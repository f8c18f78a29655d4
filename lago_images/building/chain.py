"""Build chains of images: a layer after its base, chains side by side, failures kept apart."""

import secrets
import shutil
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from lago_images.building.bases.prepared import LayerBase
from lago_images.building.image import Job, build
from lago_images.building.model import Context, Request, Result
from lago_images.building.progress import Progress
from lago_images.building.reservations import Machine, Reservations, this_machine
from lago_images.errors import BootError, CommandError, Error
from lago_images.host import kvm
from lago_images.host.kvm import Acceleration
from lago_images.host.process import CHAIN_THREADS, Children
from lago_images.host.workdir import default_scratch, workdir
from lago_images.repository.records.state import StoredBuild
from lago_images.specs.model import BaseKind

# What the names of the threads that build chains begin with.
# Seconds that chains have to end when the run is.
_MOMENT = 0.7


def build_chains(
    chains: Sequence[Sequence[Request]], context: Context, *, accel: Acceleration, jobs: int
) -> list[Result]:
    """Build chains, ``jobs`` at a time.

    An image that fails takes its layers with it and no one else. On Ctrl-C every program is
    ended, and every work directory removed before ``KeyboardInterrupt`` is passed on; but what
    does not end in a moment, as a request to a store that does not answer, is left running.

    Args:
        chains: In each, an image comes after the one it stands on.
        context: Where and with what.
        accel: What guests run on here.
        jobs: How many chains are worked on at once.

    Returns:
        How each image ended, in the order given.

    Raises:
        HostError: Working KVM is required and not there, or no work directory can be made.
    """
    _announce_acceleration(context, accel)
    children = Children()
    pool = ThreadPoolExecutor(jobs, thread_name_prefix=CHAIN_THREADS)
    context.console.interrupt = children.check
    run = _Run(
        context=context,
        accel=accel,
        children=children,
        reservations=Reservations(),
        machine=this_machine(),
    )
    futures: list[Future[list[Result]]] = []
    try:
        futures += [pool.submit(_build_chain, chain, run, grouped=jobs == 1) for chain in chains]
        results = [result for future in futures for result in future.result()]
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        children.end()
        if _are_left():
            context.console.warn("a work directory is left, which the next run removes")
        raise
    else:
        pool.shutdown()
        return results
    finally:
        context.console.interrupt = None


def _are_left() -> bool:
    """Wait a moment for the threads of chains to end; return whether one is still at work."""
    # The threads, and not their futures: a signal may come when a thread was started, and its
    # future is not known yet.
    deadline = time.monotonic() + _MOMENT
    threads = [each for each in threading.enumerate() if each.name.startswith(CHAIN_THREADS)]
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    return any(thread.is_alive() for thread in threads)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Hold what the chains of a run share."""

    context: Context
    accel: Acceleration
    children: Children
    reservations: Reservations
    machine: Machine


@dataclass(slots=True, kw_only=True)
class _Chain:
    """A chain under way: its images' results, and the disks that layers still need."""

    run: _Run
    folder: Path
    bases: dict[str, LayerBase] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)

    def add(self, request: Request, needed: frozenset[str]) -> None:
        """Build an image; ``needed`` are those that images still to come stand on."""
        spec = request.spec
        base = spec.base.name if spec.base.kind is BaseKind.LAYER else ""
        ended = self.results.get(base)
        if ended is not None and not ended.ok:
            self.run.context.console.warn(f"{spec.name}: not built, because its base {base} failed")
            self.results[spec.name] = Result(
                name=spec.name, arch=spec.arch, manifest=None, seconds=0, skipped=base
            )
            return
        self.results[spec.name] = self._build(request, base, keep=spec.name in needed)
        for name in self.bases.keys() - needed:
            (self.folder / f"{name}.qcow2").unlink(missing_ok=True)
            del self.bases[name]

    def _build(self, request: Request, base: str, *, keep: bool) -> Result:
        spec, context = request.spec, self.run.context
        folder = self.folder / "image"
        log = self.folder / "image.log"
        progress = Progress(name=spec.name, console=context.console, clock=context.clock, log=log)
        job = Job(
            request=request,
            context=context,
            accel=self.run.accel,
            folder=folder,
            base=self.bases.get(base) or _published(request),
            children=self.run.children,
            reservations=self.run.reservations,
            machine=self.run.machine,
            progress=progress,
        )
        start_time = context.clock()
        manifest, error, tail = None, "", _tail(None)
        try:
            folder.mkdir()
            built = build(job)
            if keep:
                disk = built.disk.rename(self.folder / f"{spec.name}.qcow2")
                stored = StoredBuild(manifest=built.manifest, folder=built.manifest.key.staging)
                self.bases[spec.name] = LayerBase(stored=stored, disk=disk)
            manifest = built.manifest
        except Exception as failure:  # noqa: BLE001 -- one failure stays one failure
            error, tail = _described(failure), _tail(failure)
            is_ours = not isinstance(failure, Error | OSError)
            # Of a fault of ours whoever mends it needs the traceback.
            trace = "".join(traceback.format_exception(failure))
            progress.note(trace if is_ours else f"error: {error}")
            context.console.error(f"{spec.name}: failed while {progress.step or 'beginning'}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            kept = _keep(log, f"{spec.name}.log", context)
            _keep(job.console_log, f"{spec.name}.console.log", context)
        return Result(
            name=spec.name,
            arch=spec.arch,
            manifest=manifest,
            seconds=context.clock() - start_time,
            step="" if manifest else progress.step,
            error=error,
            tail=tail,
            log=kept,
        )


def _build_chain(requests: Sequence[Request], run: _Run, *, grouped: bool) -> list[Result]:
    context = run.context
    scratch = default_scratch(context.environ)
    with run.reservations.chain(), workdir(scratch, context.console) as folder:
        chain = _Chain(run=run, folder=folder)
        for position, request in enumerate(requests):
            title = f"build {request.spec.name} ({request.spec.arch})"
            with context.console.group(title) if grouped else nullcontext():
                following = [later.spec.base for later in requests[position + 1 :]]
                needed = {base.name for base in following if base.kind is BaseKind.LAYER}
                chain.add(request, frozenset(needed))
    return [chain.results[request.spec.name] for request in requests]


def _keep(log: Path, name: str, context: Context) -> Path | None:
    """Move a log to where logs are kept, whole; where it is then, if there is one."""
    target = context.logs / name
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        target.unlink(missing_ok=True)
        if not log.exists():
            return None
        target.parent.mkdir(parents=True, exist_ok=True)
        # Logs may be kept on another file system, where a move is a copy that can break off.
        shutil.move(log, part)
        return part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        context.console.warn(f"the log {target} could not be kept: {error.strerror or error}")
        return None


def _published(request: Request) -> LayerBase | None:
    return None if request.base is None else LayerBase(stored=request.base)


def _described(failure: Exception) -> str:
    if isinstance(failure, Error):
        return failure.message + (f" ({failure.hint})" if failure.hint else "")
    return str(failure) if isinstance(failure, OSError) else f"{type(failure).__name__}: {failure}"


def _tail(failure: BaseException | None) -> tuple[str, ...]:
    while failure is not None:
        if isinstance(failure, CommandError | BootError):
            return failure.tail
        failure = failure.__cause__
    return ()


def _announce_acceleration(context: Context, accel: Acceleration) -> None:
    if context.settings.require_kvm:
        kvm.demand(accel)
    if not accel.kvm:
        why = accel.why.rstrip(".")
        context.console.warn(
            f"KVM DOES NOT WORK HERE: {why}. Guests are emulated, which takes several times as "
            f"long. To change that: {kvm.hint(accel)}"
        )
