"""This repository's specs of makers' images, from servers with the makers' own layouts."""

import io
import os
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pytest

from lago_images.building.bases.signed_list import fetch_listed
from lago_images.building.model import Context
from lago_images.console import Console
from lago_images.errors import SigningError
from lago_images.host.process import Runner
from lago_images.host.retry import RetryPolicy
from lago_images.settings import Settings
from lago_images.specs.model import Spec
from lago_images.specs.parse import parse
from lago_images.storage.directory.store import DirectoryStore
from tests.support.files import serving
from tests.support.keys import home, make_key
from tests.support.maker import Maker, sums
from tests.tools import need

need("gpg", "gpgv")
ROOT = Path(__file__).parents[2]
SPECS = ROOT / "image-specs"
KEYS = SPECS / "keys"
ONCE = RetryPolicy(attempts=1, sleep=lambda _seconds: None)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a maker's folder has.

    Attributes:
        wanted: The name of the file that the spec means.
        others: Names that are listed beside it.
        style: The list's, as ``sums`` names it.
        suffix: The signature's file is the list's name and this; without one, the list is
            clear-signed.
    """

    wanted: str
    others: tuple[str, ...] = ()
    style: str = "text"
    suffix: str = ""


LAYOUTS = {
    "lago-almalinux-10": Layout(
        wanted="AlmaLinux-10-GenericCloud-10.2-20260526.0.x86_64.qcow2",
        others=(
            "AlmaLinux-10-GenericCloud-10.1-20251125.0.x86_64.qcow2",
            "AlmaLinux-10-GenericCloud-ext4-10.2-20260526.0.x86_64.qcow2",
            "AlmaLinux-10-GenericCloud-ext4-latest.x86_64.qcow2",
            "AlmaLinux-10-GenericCloud-latest.x86_64.qcow2",
            "AlmaLinux-10-OpenNebula-10.2-20260526.0.x86_64.qcow2",
        ),
        suffix=".asc",
    ),
    "lago-fedora-44": Layout(
        wanted="Fedora-Cloud-Base-Generic-44-1.7.x86_64.qcow2",
        others=(
            "Fedora-Cloud-Base-AmazonEC2-44-1.7.x86_64.raw.xz",
            "Fedora-Cloud-Base-Azure-44-1.7.x86_64.vhdfixed.xz",
            "Fedora-Cloud-Base-UEFI-UKI-44-1.7.x86_64.qcow2",
        ),
        style="bsd",
    ),
    "lago-opensuse-leap-16": Layout(
        wanted="Leap-16.0-Minimal-VM.x86_64-Cloud.qcow2", suffix=".asc"
    ),
    "lago-rocky-10": Layout(
        wanted="Rocky-10-GenericCloud-Base-10.2-20260525.0.x86_64.qcow2",
        others=(
            "Rocky-10-GenericCloud-Base.latest.x86_64.qcow2",
            "Rocky-10-GenericCloud-LVM-10.2-20260525.0.x86_64.qcow2",
            "Rocky-10-GenericCloud-LVM.latest.x86_64.qcow2",
        ),
        style="bsd",
        suffix=".asc",
    ),
    "lago-ubuntu-24.04": Layout(
        wanted="ubuntu-24.04-server-cloudimg-amd64.img",
        others=(
            "ubuntu-24.04-server-cloudimg-amd64-root.tar.xz",
            "ubuntu-24.04-server-cloudimg-arm64.img",
        ),
        style="gnu",
        suffix=".gpg",
    ),
    "lago-ubuntu-26.04": Layout(
        wanted="ubuntu-26.04-server-cloudimg-amd64.img",
        others=(
            "ubuntu-26.04-server-cloudimg-amd64-root.tar.xz",
            "ubuntu-26.04-server-cloudimg-arm64.img",
        ),
        style="gnu",
        suffix=".gpg",
    ),
}


def own(name: str) -> Spec:
    spec, problems = parse((SPECS / name).read_text("utf-8"), name=name, path=f"image-specs/{name}")
    assert spec is not None
    assert not problems
    return spec


@pytest.fixture(scope="module")
def maker(tmp_path_factory):
    return Maker(make_key(tmp_path_factory.mktemp("key"), "maker"))


@pytest.fixture
def server():
    with serving() as files:
        yield files


def at(spec: Spec, server, key: str) -> Spec:
    """The spec with another server in its URLs, whose paths stay, and another key."""

    def here(url: str) -> str:
        return server.url + urlsplit(url).path

    properties = {**spec.properties, "base-key": key}
    properties["base-checksums"] = here(properties["base-checksums"])
    properties.pop("base-mirror", None)
    base = replace(spec.base, name=here(spec.base.name))
    return replace(spec, base=base, properties=properties)


def publish(layout: Layout, spec: Spec, maker: Maker, server) -> None:
    folder = PurePosixPath(urlsplit(spec.base.name).path).parent
    files = {f"{folder}/{name}": name.encode() for name in (layout.wanted, *layout.others)}
    path, text = urlsplit(spec.properties["base-checksums"]).path, sums(files, style=layout.style)
    server.content |= files
    if layout.suffix:
        armour = () if layout.suffix == ".gpg" else ("--armor",)
        signed = {path: text, path + layout.suffix: maker.sign(text, "--detach-sign", *armour)}
    else:
        signed = {path: maker.clear(text)}
    server.content |= signed


def fetched(spec: Spec, tmp_path, *, root) -> tuple[bytes, str]:
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    context = Context(
        root=root,
        store=DirectoryStore(path=tmp_path / "repo"),
        settings=Settings(folder=root),
        console=Console(stream=io.StringIO()),
        environ=environ,
        cache=tmp_path / "cache",
        logs=tmp_path / "logs",
        clock=time.time,
    )
    disk = tmp_path / "base.disk"
    record = fetch_listed(spec, disk, context, Runner(environ=environ), retry=ONCE)
    return disk.read_bytes(), record.detail


def test_every_spec_of_a_signed_image_is_tried():
    texts = {path.name: path.read_text("utf-8") for path in SPECS.iterdir() if path.is_file()}
    assert {name for name, text in texts.items() if "\n#base-checksums=" in text} == set(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_spec_takes_the_image_that_is_meant(name, maker, server, tmp_path):
    layout, spec = LAYOUTS[name], own(name)
    publish(layout, spec, maker, server)
    (tmp_path / "key.asc").write_bytes(maker.key.public.read_bytes())
    content, detail = fetched(at(spec, server, "key.asc"), tmp_path, root=tmp_path)
    assert content.decode() == layout.wanted
    assert detail.endswith(f"signed by {maker.key.fingerprint}")


@pytest.mark.parametrize("name", LAYOUTS)
def test_only_the_makers_own_key_is_believed(name, maker, server, tmp_path):
    spec = own(name)
    publish(LAYOUTS[name], spec, maker, server)
    with pytest.raises(SigningError, match="which is none of those it is checked with"):
        fetched(at(spec, server, spec.properties["base-key"]), tmp_path, root=ROOT)


def test_the_readme_has_the_fingerprint_of_every_key():
    told = dict(re.findall(r"^\| `(\S+)` \| `([0-9A-F ]+)` \|", _readme(), re.MULTILINE))
    assert {name: told[name].replace(" ", "") for name in told} == {
        path.name: _fingerprint(path.read_bytes()) for path in KEYS.glob("*.asc")
    }
    used = {own(name).properties["base-key"] for name in LAYOUTS}
    assert used == {f"image-specs/keys/{name}" for name in told}


def _readme() -> str:
    return (KEYS / "README.md").read_text("utf-8")


def _fingerprint(key: bytes) -> str:
    with home() as gpg:
        out = gpg.call("--with-colons", "--show-keys", stdin=key).decode()
    [fingerprint] = re.findall(r"^pub:.*\n(?:.*\n)*?fpr:+([0-9A-F]+):", out, re.MULTILINE)
    return fingerprint
