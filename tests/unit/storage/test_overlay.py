"""What two stores as one can do: only the upper one is written."""

import pytest

from lago_images.console import Console
from lago_images.errors import StorageError
from lago_images.storage.directory.store import DirectoryStore
from lago_images.storage.overlay import OverlayStore


@pytest.fixture
def upper(tmp_path):
    return DirectoryStore(path=tmp_path / "upper")


@pytest.fixture
def lower(tmp_path):
    return DirectoryStore(path=tmp_path / "lower")


def test_an_overlay_has_no_single_folder(upper, lower):
    assert upper.folder == upper.path
    assert OverlayStore(upper=upper, lower=lower).folder is None


def test_the_upper_store_of_an_overlay_must_be_writable(upper, lower, tmp_path):
    console = Console(quiet=True)
    (tmp_path / "lower").write_text("in the way")
    OverlayStore(upper=upper, lower=lower).ensure_safe_writes(single_writer=False, console=console)
    with pytest.raises(StorageError, match="Not a directory"):
        OverlayStore(upper=lower, lower=upper).ensure_safe_writes(
            single_writer=False, console=console
        )
