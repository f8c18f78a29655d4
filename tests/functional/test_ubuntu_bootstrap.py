"""That Ubuntu's recipes resolve in an archive with Ubuntu's pockets, components and names."""

import os
import subprocess

import pytest

from lago_images.building.bases.bootstrap.debian import Recipe, recipe
from tests.support.builders import lines
from tests.support.debian_archive import Stanza
from tests.support.files import serving
from tests.support.keys import home, make_key
from tests.support.ubuntu_archive import POCKETS, publish
from tests.tools import need

need("mmdebstrap", "gpg", "apt-get")
# What `universe` has of them in Ubuntu 24.04; all else is in `main`.
UNIVERSE = {"ifupdown", "openresolv"}
ESSENTIAL = ("apt", "base-files")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return make_key(folder, "ubuntu"), make_key(folder, "other")


@pytest.fixture(scope="module")
def server():
    with serving() as files:
        yield files


def resolved(todo: Recipe, key, folder) -> subprocess.CompletedProcess[str]:
    """Let mmdebstrap say what it would install, which it does as far as apt's resolver."""
    keyring = folder / "keyring.gpg"
    with home() as gpg:
        keyring.write_bytes(gpg.call("--dearmor", stdin=key.public.read_bytes()))
    components = todo.release.distribution.components.replace(" ", ",")
    # fmt: off
    argv = [
        "mmdebstrap", "--simulate", "--mode=root" if os.geteuid() == 0 else "--mode=unshare",
        "--variant=minbase",
        f"--components={components}",
        f"--architectures={todo.arch}",
        f"--include={','.join(todo.packages)}",
        f"--keyring={keyring}",
        # The user that apt reads as cannot enter a folder of the tests.
        '--aptopt=APT::Sandbox::User "root"',
        todo.release.codename, "/dev/null",
        *todo.sources,
    ]
    # fmt: on
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def world(todo: Recipe, *, without: str = "") -> dict[str, list[Stanza]]:
    names = [name for name in todo.packages if name not in {*ESSENTIAL, without}]
    main = [Stanza(name=name, version="1", more=("Essential: yes",)) for name in ESSENTIAL]
    return {
        "main": [*main, *(Stanza(name=n, version="1") for n in names if n not in UNIVERSE)],
        "universe": [Stanza(name=n, version="1") for n in names if n in UNIVERSE],
    }


def made(server, release: str) -> Recipe:
    spec = lines(
        f"#mirror={server.url}/ubuntu", "#cloud-init=yes", base=f"bootstrap:ubuntu-{release}"
    )
    return recipe(spec, None)


@pytest.mark.parametrize("release", ["24.04", "26.04"])
def test_a_recipe_resolves_in_its_own_suites_and_components(release, keys, server, tmp_path):
    todo = made(server, release)
    publish(server, keys[0], todo.release.codename, world(todo))
    server.requests.clear()
    run = resolved(todo, keys[0], tmp_path)
    assert run.returncode == 0, run.stderr
    asked = {path for path, _, status in server.requests if status == 200}
    place = f"/ubuntu/dists/{todo.release.codename}"
    assert {f"{place}{pocket}/InRelease" for pocket in POCKETS} <= asked
    assert {f"{place}/{name}/binary-amd64/Packages" for name in ("main", "universe")} <= asked


@pytest.mark.parametrize("missing", ["linux-image-virtual", "shim-signed", "ifupdown"])
def test_a_package_that_is_missing_is_named(missing, keys, server, tmp_path):
    todo = made(server, "24.04")
    publish(server, keys[0], "noble", world(todo, without=missing))
    run = resolved(todo, keys[0], tmp_path)
    assert run.returncode != 0
    assert f"Unable to locate package {missing}" in run.stderr


def test_an_archive_signed_by_another_key_is_refused(keys, server, tmp_path):
    todo = made(server, "24.04")
    publish(server, keys[1], "noble", world(todo))
    run = resolved(todo, keys[0], tmp_path)
    assert run.returncode != 0
    assert "NO_PUBKEY" in run.stderr
