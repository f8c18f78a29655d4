"""Repositories published by the real command line, served by the real server."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from lago_images.host.kvm import Acceleration
from tests.clients import lago
from tests.clients.serving import Serving, serving
from tests.clients.virt_builder import VirtBuilder
from tests.servers.processes import free_port
from tests.support import laptop
from tests.support.guests import acceleration
from tests.support.keys import TestKey, make_key
from tests.support.specs import SpecsRepo
from tests.tools import need


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A specs repository, and the directory its images are published into."""

    specs: SpecsRepo
    base_url: str
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.specs.root / "image-repo"

    def publish(self, *names: str) -> None:
        """Build all specs, or some, and publish them."""
        self.specs.commit()
        ran = self.specs.run(
            "build", *names, "--repo-name", "tests", "--base-url", self.base_url,
            environ=self.environ, timeout=1500,
        )  # fmt: skip
        assert ran.code == 0, ran.out + ran.err

    def only(self, pattern: str) -> Path:
        """The one published file that matches."""
        (found,) = self.folder.glob(pattern)
        return found

    def copy(self, folder: Path) -> "Publication":
        """The same in another folder, at the same URL."""
        shutil.copytree(self.specs.root, folder / "specs", symlinks=True)
        return replace(self, specs=SpecsRepo(root=folder / "specs"))

    def serve(self) -> AbstractContextManager[Serving]:
        port = int(self.base_url.rpartition(":")[2])
        return serving(self.folder, self.specs.root.parent / "serve.log", port=port)


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> TestKey:
    need("gpg", "gpgconf")
    return make_key(tmp_path_factory.mktemp("key"), "publisher")


@pytest.fixture(scope="session")
def accel() -> Acceleration:
    need("qemu-system-x86_64")
    return acceleration()


@pytest.fixture
def user(tmp_path: Path, accel: Acceleration) -> VirtBuilder:
    """A virt-builder user with nothing in their home yet."""
    need("virt-builder", "gpg", "curl")
    appliance = {"LIBGUESTFS_BACKEND": "direct"}
    if not accel.kvm:
        appliance["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
    home = tmp_path / "home"
    home.mkdir()
    return VirtBuilder(home=home, appliance=appliance)


# As it was released only where an old enough Python happens to be: nothing else needs one.
@pytest.fixture(params=[lago.converted, *([lago.unmodified] if lago.python2() else [])])
def client(request: pytest.FixtureRequest) -> lago.Lago:
    """The real lago, converted to this Python, and as it was released where that can run."""
    need("qemu-img", "xz")
    made: lago.Lago = request.param()
    return made


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Publication:
    """A published repository with one tiny disk, which is too small to boot; not to be changed.

    The disk is there as a qcow2, too, of which these clients notice nothing.
    """
    need("qemu-img", "git")
    also = {"LAGO_IMAGES_PUBLISH_ALSO": "qcow2"}
    return tiny_publication(tmp_path_factory.mktemp("published"), also)


@pytest.fixture(scope="session")
def published_signed(tmp_path_factory: pytest.TempPathFactory, key: TestKey) -> Publication:
    """The same, signed."""
    need("qemu-img", "git")
    environ = {"LAGO_IMAGES_SIGNING_KEY": f"file:{key.secret}"}
    return tiny_publication(tmp_path_factory.mktemp("published-signed"), environ)


@pytest.fixture(scope="session")
def reader(accel: Acceleration) -> Iterator[laptop.Reader]:
    """Who followed the tutorial, and has a Debian in a signed repository now."""
    need("git", "gpg", "curl", "mmdebstrap", "virt-builder", "qemu-img")
    with tempfile.TemporaryDirectory(prefix="t") as home:
        yield laptop.follow(Path(home), free_port(), has_kvm=accel.kvm)


@pytest.fixture(scope="session")
def machines(reader: laptop.Reader) -> Publication:
    """The tutorial's signed repository, with a Debian that boots under both kinds of firmware."""
    assert reader.problem == ""
    url = f"http://127.0.0.1:{reader.port}"
    return Publication(specs=SpecsRepo(root=reader.folder), base_url=url)


@pytest.fixture
def small(published: Publication, tmp_path: Path) -> Publication:
    """The unsigned repository, to do anything with."""
    return published.copy(tmp_path)


@pytest.fixture
def signed(published_signed: Publication, tmp_path: Path) -> Publication:
    """The signed repository, to do anything with."""
    return published_signed.copy(tmp_path)


def tiny_publication(folder: Path, environ: dict[str, str] | None = None) -> Publication:
    specs = SpecsRepo.create(folder / "specs")
    specs.write(".gitignore", "/image-repo/\n")
    specs.disk("image-specs/files/tiny.img")
    specs.spec("tiny", "simple:image-specs/files/tiny.img", "#root-password=123456")
    url = f"http://127.0.0.1:{free_port()}"
    publication = Publication(specs=specs, base_url=url, environ=environ or {})
    publication.publish()
    return publication


@pytest.fixture
def served(small: Publication) -> Iterator[Serving]:
    with small.serve() as server:
        yield server


@pytest.fixture
def served_signed(signed: Publication) -> Iterator[Serving]:
    with signed.serve() as server:
        yield server
