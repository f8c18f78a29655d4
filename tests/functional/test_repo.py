"""``repo list`` and ``repo refresh``, as a person calls them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from lago_images.cli.main import main
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import (
    manifest,
    overwrite,
    publish_by_hand,
    put,
    put_build,
    release,
)
from tests.support.keys import make_key
from tests.support.running import left_running, programs_of
from tests.tools import need


@pytest.fixture
def repo(tmp_path, monkeypatch):
    folder = tmp_path / "specs"
    (folder / "image-specs").mkdir(parents=True)

    def call(*args, **environ):
        monkeypatch.chdir(folder)
        own = ("LAGO_IMAGES_", "GITHUB_", "CI")
        clean = {name: None for name in os.environ if name.startswith(own)}
        return CliRunner(env={**clean, **environ}).invoke(main, ["repo", *args])

    call.store = DirectoryStore(path=folder / "image-repo")  # type: ignore[attr-defined]
    return call


def test_list_prints_what_is_published(repo):
    publish_by_hand(repo.store, manifest(build_id="b1"), manifest(build_id="b2"))
    done = repo("list")
    assert done.exit_code == 0, done.stderr
    header, row = done.stdout.splitlines()
    assert header.split() == [
        *("name", "arch", "revision", "version"),
        *("published", "built", "size", "fingerprint", "commit"),
    ]
    *before, _age, _unit, ago, size, unit, fingerprint, commit = row.split()
    assert before == ["debian-12", "x86_64", "2", "1-2", "2023-11-14", "22:13Z"]
    assert ago == "ago"
    assert [size, unit, fingerprint, commit] == ["24", "B", "f1", "c1"]


def test_list_all_as_json_has_every_revision(repo):
    publish_by_hand(repo.store, manifest(build_id="b1"), manifest(build_id="b2"))
    listed = json.loads(repo("list", "--all", "--format", "json").stdout)
    assert [each["revision"] for each in listed["images"]] == [1, 2]
    first = listed["images"][0]
    assert (first["version"], first["published"]) == ("1-1", 1_700_000_000)
    assert (first["fingerprint"], first["commit"]) == ("sha256:f1", "c1")
    assert first["disk"]["compressed_size"] == 24


def test_list_prints_nothing_for_an_empty_repository(repo):
    done = repo("list", "--format", "json")
    assert (done.exit_code, json.loads(done.stdout)["images"]) == (0, [])


def test_a_second_refresh_writes_nothing(repo):
    publish_by_hand(repo.store, manifest())
    done = repo("refresh")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [
        "written catalogue/debian-12.html",
        "written catalogue/debian-12.xml",
        "written latest/debian-12.x86_64.json",
        "written images.json",
        "written SHA256SUMS",
        "written index",
        "written repo.metadata",
        "written feed.xml",
        "written index.html",
    ]
    again = repo("refresh")
    assert (again.exit_code, again.stdout) == (0, "")
    assert "up to date" in again.stderr


def test_refresh_without_the_signing_key_writes_nothing_and_exits_1(repo):
    publish_by_hand(repo.store, manifest())
    done = repo("refresh", LAGO_IMAGES_SIGNING_KEY="file:none.asc")
    assert done.exit_code == 1
    assert "cannot read the signing key" in done.stderr
    assert "hint:" in done.stderr
    assert not list(repo.store.list("index"))


_KILLER = """#!/bin/sh
case "$*" in *--clearsign*) kill -9 $PPID ;; esac
exec {gpg} "$@"
"""


@pytest.fixture
def scratch():
    """A folder for temporary files with a short path: a socket's may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="s") as folder:
        yield Path(folder)


def test_the_key_of_a_killed_signer_is_removed_by_the_next_run(repo, tmp_path, scratch):
    need("gpg", "gpgconf")
    publish_by_hand(repo.store, manifest())
    key = make_key(tmp_path, "key")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "gpg").write_text(_KILLER.format(gpg=shutil.which("gpg")))
    (bin_ / "gpg").chmod(0o755)
    environ = {
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "TMPDIR": str(scratch),
        "LAGO_IMAGES_REPOSITORY": repo.store.url,
        "LAGO_IMAGES_SIGNING_KEY": f"file:{key.secret}",
    }

    def refresh(path):
        argv = [sys.executable, "-m", "lago_images", "repo", "refresh"]
        root = Path(__file__).parents[2]
        env = {**environ, "PATH": path, "PYTHONPATH": str(root)}
        return subprocess.run(argv, env=env, cwd=tmp_path, check=False).returncode

    assert refresh(f"{bin_}:{environ['PATH']}") == -signal.SIGKILL
    assert list(scratch.glob("*/private-keys-v1.d/*.key"))
    assert programs_of(str(scratch))
    assert refresh(environ["PATH"]) == 0
    assert list(scratch.iterdir()) == []
    assert left_running(str(scratch)) == []


def test_refresh_makes_no_repository_of_a_mistyped_path(repo):
    done = repo("refresh", "--repository", "mistyped")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "error: there is no folder " in done.stderr
    assert "hint: check the path or URL" in done.stderr
    assert not Path("mistyped").exists()
    # A folder that somebody made for it is one with nothing published yet.
    Path("mistyped").mkdir()
    assert repo("refresh", "--repository", "mistyped").exit_code == 0
    assert Path("mistyped/index").exists()


def test_refresh_of_a_bucket_opens_it_once(repo, moto):
    """Each time that it is opened warns of its settings."""
    url = f"s3://{moto.new_bucket()}/images"
    given = {
        **moto.environ,
        "LAGO_IMAGES_SINGLE_WRITER": "true",
        "LAGO_IMAGES_BASE_URL": "https://images.example.org",
    }
    done = repo("refresh", "--repository", url, **given)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("warning: single-writer is set") == 1


def test_refresh_with_invalid_settings_exits_2(repo):
    done = repo("refresh", LAGO_IMAGES_BASE_URL="ftp://x")
    assert done.exit_code == 2
    assert "LAGO_IMAGES_BASE_URL: must be" in done.stderr


def test_releases_behind_a_link_are_refused(repo, tmp_path):
    publish_by_hand(repo.store, manifest())
    assert repo("refresh").exit_code == 0
    index = repo.store.get("index").data
    (repo.store.path / "releases").rename(tmp_path / "moved")
    (repo.store.path / "releases").symlink_to(tmp_path / "moved")
    done = repo("refresh")
    assert done.exit_code == 1
    assert "releases is a symbolic link" in done.stderr
    assert "hint:" in done.stderr
    assert repo.store.get("index").data == index


@pytest.mark.parametrize("command", ["list", "refresh"])
def test_a_damaged_release_is_reported_and_leaves_the_other_images_intact(repo, command):
    publish_by_hand(repo.store, manifest(), manifest("other"))
    overwrite(repo.store, str(release().key), b"{}")
    done = repo(command)
    assert done.exit_code == 1
    assert "releases/debian-12/x86_64/1.json is not a release" in done.stderr
    assert "restore it from a copy" in done.stderr
    listed = json.loads(repo("list", "--format", "json").stdout)["images"]
    assert [image["name"] for image in listed] == ["other"]


def test_a_damaged_staged_build_affects_no_image(repo):
    publish_by_hand(repo.store, manifest())
    staging = put_build(repo.store, manifest(build_id="b2"))
    overwrite(repo.store, staging.manifest, b"{}")
    done = repo("refresh")
    assert (done.exit_code, "b2" in done.stderr) == (0, False)
    found = json.loads(repo("verify", "--format", "json").stdout)["findings"]
    assert staging.manifest in [one["where"] for one in found if one["severity"] == "note"]


def test_a_repository_of_the_older_layout_is_refused_with_a_hint(repo):
    put(repo.store, "releases/debian-12/x86_64/1.json", b'{"schema": 1}')
    for command in ("list", "refresh", "verify", "gc"):
        done = repo(command)
        assert done.exit_code == 1
        assert "1.json is of an older lago-images" in done.stderr


def test_an_invalid_repository_url_exits_2(repo):
    assert repo("list", "--repository", "gopher://x").exit_code == 2
