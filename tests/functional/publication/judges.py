"""The real readers of an index, asked once about each that comes up."""

import re
import threading
from pathlib import Path

from tests.clients.virt_builder import VirtBuilder, validate
from tests.functional.publication.scene import Revisions, Scene

_LOCK = threading.Lock()
# What is new in the folder's name of each copy: when it was built, and what chance gave.
_NEW_EACH_TIME = re.compile(rb"\d{8}T\d{6}Z-[0-9a-f]{8}-[0-9a-f]{8}\.[0-9a-f]{8}/")


def judge(scene: Scene, text: bytes, expected: tuple[Revisions, ...], folder: Path) -> None:
    """Assert that guestfs-tools accept an index, and list one of the expected sets of images."""
    kind = _NEW_EACH_TIME.sub(b"", text)
    with _LOCK:
        if kind in scene.judged:
            return
        path = folder / f"index-{len(scene.judged)}"
        path.write_bytes(text)
        validate(path)
        client = VirtBuilder(home=folder / f"user-{len(scene.judged)}", appliance={})
        client.add_source("r", f"file://{path}")
        listed = {one["os-version"] for one in client.list("--no-cache")}
        assert listed in [set(revisions) for revisions in expected]
        scene.judged.add(kind)


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
