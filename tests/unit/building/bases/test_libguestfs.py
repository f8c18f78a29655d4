import os
from pathlib import Path

import pytest

from lago_images.building.bases.libguestfs import configured, find
from lago_images.errors import BuildError, SigningError
from lago_images.host.process import Runner
from lago_images.settings import Settings, TemplateSource
from tests.tools import need


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_sources_of_the_settings_come_before_virt_builders(tmp_path):
    named = TemplateSource(url="http://t.example/index")
    write(tmp_path / "virt-builder/repos.d/a.conf", "[a]\nuri=http://a.example/index\n")
    environ = {"VIRT_BUILDER_DIRS": str(tmp_path), "HOME": str(tmp_path)}
    assert configured(Settings(template_sources=(named,)), environ) == (named,)
    assert configured(Settings(), environ) == (TemplateSource(url="http://a.example/index"),)


def test_the_users_sources_come_before_the_systems(tmp_path):
    user, system = tmp_path / "user", tmp_path / "system"
    write(user / "virt-builder/repos.d/u.conf", "[u]\nuri=http://u.example/i\ngpgkey=file:///k\n")
    write(system / "virt-builder/repos.d/b.conf", "[b]\nuri=http://b.example/i\n")
    write(system / "virt-builder/repos.d/a.conf", "[a]\nuri=http://a.example/i%20x\nproxy=off\n")
    found = configured(Settings(), {"XDG_CONFIG_HOME": str(user), "VIRT_BUILDER_DIRS": str(system)})
    assert found == (
        TemplateSource(url="http://u.example/i", key="/k"),
        TemplateSource(url="http://a.example/i%20x"),
        TemplateSource(url="http://b.example/i"),
    )


def test_sources_of_other_kinds_are_skipped(tmp_path):
    write(
        tmp_path / "virt-builder/repos.d/s.conf",
        "[s]\nuri=http://s.example/\nformat=simplestreams\n[empty]\n[n]\nuri=http://n.example/i\n",
    )
    environ = {"VIRT_BUILDER_DIRS": str(tmp_path), "HOME": "/nowhere"}
    assert [s.url for s in configured(Settings(), environ)] == ["http://n.example/i"]


def test_an_unreadable_configuration_is_reported(tmp_path):
    write(tmp_path / "virt-builder/repos.d/bad.conf", "uri=no section\n")
    environ = {"VIRT_BUILDER_DIRS": str(tmp_path), "HOME": "/nowhere"}
    with pytest.raises(BuildError, match=r"bad\.conf cannot be read"):
        configured(Settings(), environ)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path, out: path.symlink_to(out), "leads out of the repository"),
        (lambda path, _: path.symlink_to(".git/config"), "leads to git's own files"),
        (lambda path, _: os.mkfifo(path), "is not a regular file"),
        (lambda _path, _: None, "No such file or directory"),
    ],
    ids=["out", "git", "pipe", "missing"],
)
def test_a_sources_key_must_be_a_file_of_the_repository(tmp_path, make, reason):
    need("gpg", "gpgconf")
    root = tmp_path / "root"
    write(root / ".git/config", "token")
    write(tmp_path / "secret", "secret")
    write(tmp_path / "index.asc", "-----BEGIN PGP SIGNED MESSAGE-----\n")
    make(root / "key.asc", tmp_path / "secret")
    source = TemplateSource(url=f"file://{tmp_path}/index.asc", key="key.asc")
    with pytest.raises(SigningError, match=rf"its key key\.asc cannot be used: {reason}"):
        find("debian-12", "x86_64", (source,), folder=root, environ={}, runner=Runner())
