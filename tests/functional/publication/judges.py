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


def judge_signed(scene: Scene, text: bytes, expected: tuple[Revisions, ...], folder: Path) -> None:
    """Assert that virt-builder, with checking on, lists one of the expected sets of images."""
    assert scene.key is not None
    with _LOCK:
        if text in scene.judged:
            return
        path = folder / f"index-{len(scene.judged)}.asc"
        path.write_bytes(text)
        client = VirtBuilder(home=folder / f"user-{len(scene.judged)}", appliance={})
        client.add_source("r", f"file://{path}", scene.key.public)
        listed = {one["os-version"] for one in client.list("--no-cache", "--check-signature")}
        assert listed in [set(revisions) for revisions in expected]
        scene.judged.add(text)
