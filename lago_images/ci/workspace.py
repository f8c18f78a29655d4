"""Where a job works: the checked-out specs, the repository they are published to, this host."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lago_images.console import Console
from lago_images.planning.git import Git
from lago_images.settings import Settings
from lago_images.storage.base import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Everything a job is handed.

    Attributes:
        root: The folder of the specs repository.
        git: None outside git.
        cache: For what outlives a run.
        logs: Where each image's log is kept.
        clock: Seconds since the epoch.
    """

    root: Path
    settings: Settings
    console: Console
    environ: Mapping[str, str]
    store: Store
    git: Git | None
    cache: Path
    logs: Path
    clock: Callable[[], float]
