"""Describe what a builder is asked for, and its results."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lago_images.console import Console
from lago_images.repository.records.guest_tests import GuestTestRecord
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.state import StoredBuild
from lago_images.settings import Settings
from lago_images.specs.boot_check import boot_check
from lago_images.specs.model import Spec
from lago_images.specs.quarantine import NONE, Quarantine
from lago_images.storage.base import Store


class Phase(StrEnum):
    """A part of an image's build; the last three may be under way at once.

    ``also`` makes and uploads the forms of the disk that ``publish-also`` asks for.
    """

    BASE = "base"
    SETUP = "setup"
    DISK = "disk"
    BOOT = "boot"
    UPLOAD = "upload"
    ALSO = "also"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTime:
    """The time that a step of a phase took: from seconds since the epoch, in seconds."""

    phase: Phase
    start_time: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An image to build.

    Attributes:
        commit: What is checked out; ``unknown`` outside git.
        dirty: True if that commit lacks something of the files it is built from.
        base: For a layer whose base is not built in this run, the base's build in the
            repository: published, or about to be promoted. None for others.
        expected: Seconds that the published build of the image took; None without one.
        below: The specs that a layer stands on, its base first.
        firmwares: The kinds of firmware that it is booted with; empty for the usual one.
        grows: Whether the root file system of a machine made of it grows with the disk.
        quarantine: What may fail for now.
        origin: Where an earlier build got its packages from, as its manifest's base has it, which
            is to be used again; empty to choose that anew.
    """

    spec: Spec
    fingerprint: str
    commit: str
    dirty: bool
    base: StoredBuild | None = None
    expected: float | None = None
    below: tuple[Spec, ...] = ()
    firmwares: tuple[str, ...] = ()
    grows: bool = False
    quarantine: Quarantine = NONE
    origin: str = ""

    @property
    def may_start_guest(self) -> bool:
        """Return whether a guest may be started for it: to boot it, or to run its commands in."""
        return bool(self.spec.operations) or not boot_check(self.spec.properties).is_off


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Hold where and with what a run works, as far as building needs it.

    Attributes:
        root: The folder of the specs repository, that specs' host paths are relative to.
        store: The repository's.
        environ: The environment variables of the run; ``TMPDIR`` is where work directories are
            made.
        cache: Downloads that outlive a run.
        logs: Where each image's log is kept when its build has ended, as ``<name>.log`` and
            ``<name>.console.log``.
        clock: Seconds since the epoch.
    """

    root: Path
    settings: Settings
    console: Console
    environ: Mapping[str, str]
    store: Store
    cache: Path
    logs: Path
    clock: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of one image's build.

    Attributes:
        manifest: The build's, when it is in the repository; None when it failed.
        step: What was being done when it failed.
        error: What went wrong; empty when nothing did.
        tail: The last lines of the failing program's output.
        skipped: The image whose failure kept this one from its end: its base, or the one that it
            was built for.
        seconds: From start to end.
        log: The image's log.
        start_time: When it began, in seconds since the epoch; None when it was not tried.
        expected: Seconds that its published build took; None without one.
        times: What each phase took, in the order of their ends.
        tests: How the tests of the spec's own ended, where the image failed by them.
    """

    name: str
    arch: str
    manifest: Manifest | None
    seconds: float
    step: str = ""
    error: str = ""
    tail: tuple[str, ...] = ()
    skipped: str = ""
    log: Path | None = None
    start_time: float | None = None
    expected: float | None = None
    times: tuple[PhaseTime, ...] = ()
    tests: tuple[GuestTestRecord, ...] = ()

    @property
    def failure(self) -> str:
        """Return in words while what it failed, and why."""
        return f"{self.name}: failed while {self.step or 'building'}: {self.error}"

    @property
    def ok(self) -> bool:
        return self.manifest is not None

    @property
    def manifest_sha256(self) -> str | None:
        """Return the digest of the manifest's bytes in the repository."""
        if self.manifest is None:
            return None
        return hashlib.sha256(self.manifest.to_json()).hexdigest()
