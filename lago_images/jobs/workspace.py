"""Hold where a job works: the checked-out specs, the repository, this host."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lago_images.building.model import Context
from lago_images.repository.records.manifest import Manifest
from lago_images.storage.base import Store
from lago_images.storage.directory.store import DirectoryStore
from lago_images.storage.overlay import OverlayStore

if TYPE_CHECKING:
    from lago_images.planning.git import Git


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace(Context):
    """Hold everything a job is handed: what building needs, and git, which it must not know.

    Attributes:
        git: The git repository that the specs are in; None outside git.
        objection: Says why a build may not be promoted where settings say ``attested``; None where
            nobody can say, and then nothing is promoted.
    """

    git: "Git | None"
    objection: Callable[[Manifest], str | None] | None = None

    @property
    def is_promoting(self) -> bool:
        """Return whether builds of other runs may be released."""
        promote = self.settings.promote
        return promote == "same-repository" or (promote == "attested" and bool(self.objection))


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder for what outlives a run: downloads, logs."""
    # https://specifications.freedesktop.org/basedir-spec/latest/: empty counts as not set.
    home = environ.get("XDG_CACHE_HOME") or str(
        Path(environ.get("HOME", "/tmp")) / ".cache"  # noqa: S108 -- no home at all
    )
    return Path(home) / "lago-images"


def set_aside(store: Store, folder: Path) -> Store:
    """Return a store that reads ``store``, and keeps in ``folder`` all that is written."""
    return OverlayStore(upper=DirectoryStore(path=folder / "repository"), lower=store)
