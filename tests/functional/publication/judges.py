"""The real readers of an index, asked once about each that comes up."""

import threading
from pathlib import Path

from tests.clients.virt_builder import VirtBuilder, validate
from tests.functional.publication.scene import Revisions, Scene

_LOCK = threading.Lock()


def judge(scene: Scene, text: bytes, expected: tuple[Revisions, ...], folder: Path) -> None:
    """Assert that guestfs-tools accept an index, and list one of the expected sets of images."""
    with _LOCK:
        if text in scene.judged:
            return
        path = folder / f"index-{len(scene.judged)}"
        path.write_bytes(text)
        validate(path)
        client = VirtBuilder(home=folder / f"user-{len(scene.judged)}", appliance={})
        client.add_source("r", f"file://{path}")
        listed = {one["os-version"] for one in client.list("--no-cache")}
        assert listed in [set(revisions) for revisions in expected]
        scene.judged.add(text)
