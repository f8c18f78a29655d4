"""``repo reproduce``: a published revision is built again from its commit, and compared."""

import shutil
import subprocess
from dataclasses import replace

import pytest

from lago_images.building.chain import build_chains
from lago_images.building.ext4 import Place, settle_times, write_ext4
from lago_images.building.model import Request
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner
from lago_images.repository.records.manifest import EngineRecord
from lago_images.specs.read import read
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import layer_on, manifest, publish_by_hand
from tests.support.images import a_context
from tests.support.small_filesystem import run_in_small_filesystem
from tests.support.specs import SpecsRepo, git
from tests.tools import need

need("qemu-img", "git", "mke2fs", "debugfs", "dumpe2fs", "sfdisk")
MIB = 2**20
PLACE = Place(
    start=MIB,
    size=16 * MIB,
    uuid="0a1b2c3d-1111-2222-3333-444455556666",
    label="root",
    hash_seed="1a1b2c3d-1111-2222-3333-444455556666",
)


def specs(folder):
    repo = SpecsRepo.create(folder / "specs")
    repo.write(".gitignore", "image-repo\n")
    repo.disk("image-specs/files/one.img", seed=1)
    repo.spec("one", "simple:image-specs/files/one.img")
    return repo


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    """Two revisions of a base and its layer, and by now a clone that has other files."""
    repo = specs(tmp_path_factory.mktemp("reproduce"))
    repo.spec("one-layer", "layer:one", "#size=2M")
    repo.commit("Add the specs")
    published(repo)
    repo.disk("image-specs/files/one.img", seed=2)
    repo.commit("Another disk")
    published(repo)
    repo.spec("one", "simple:image-specs/files/one.img", "#notes=new")
    repo.commit("Say something")
    repo.write("image-specs/files/one.img", "not a disk")
    return repo


def published(repo):
    ran = repo.run("ci", "rebuild", "--changed")
    assert ran.code == 0, ran.err
    return repo


def objects(repo):
    folder = repo.root / "image-repo"
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


def ext4_disk(folder, files):
    """A disk as ``bootstrap:`` lays it out, with these files in it."""
    tree, disk = folder / "tree", folder / "disk.raw"
    for name, text in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tree / "etc/program").chmod(0o755 if "more" in files else 0o700)
    with disk.open("wb") as file:
        file.truncate(PLACE.start + PLACE.size)
    table = "label: dos\nlabel-id: 0x1234abcd\nstart=2048, type=83, bootable\n"
    subprocess.run(["sfdisk", "-q", disk], input=table, text=True, check=True, timeout=60)
    settle_times(tree, 0, 10**9, Runner())
    write_ext4(str(tree), str(disk), PLACE, folder, 10**9, Runner())
    shutil.rmtree(tree)
    return disk


@pytest.mark.parametrize(
    ("name", "options", "commit"),
    [
        ("one", ("--revision", "1"), "HEAD~2"),
        ("one-layer", ("--revision", "1"), "HEAD~2"),
        ("one-layer", (), "HEAD~1"),
    ],
)
def test_the_same_commit_and_base_give_the_same_bytes(repo, name, options, commit):
    before = objects(repo)
    ran = repo.run("repo", "reproduce", name, *options)
    assert ran.code == 0, ran.out + ran.err
    title, verdict = ran.out.splitlines()
    assert title.startswith(f"{name} (x86_64), revision {(options or '2')[-1]}: build ")
    assert title.endswith(f"of commit {git(repo.root, 'rev-parse', commit)}")
    assert verdict == "same bytes"
    assert objects(repo) == before
    assert git(repo.root, "status", "--short") == "M image-specs/files/one.img"


def test_it_works_in_a_shallow_clone(repo, tmp_path):
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{repo.root}", "clone")
    ran = repo.run(
        *("-C", str(tmp_path / "clone"), "repo", "reproduce", "one"),
        *("--repository", str(repo.root / "image-repo")),
    )
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "same bytes"), ran.err


def test_what_a_builder_made_otherwise_is_named_file_by_file(tmp_path):
    """Its disk is not what its manifest says it was made of."""
    repo = SpecsRepo.create(tmp_path / "specs")
    same = {"etc/same": "x", "etc/program": "x"}
    honest = ext4_disk(tmp_path, {**same, "etc/changed": "newer", "more": "x"})
    shutil.move(honest, repo.write("one.img", ""))
    repo.spec("one", "simple:one.img")
    commit = repo.commit("Add an image")
    [image] = repo.run("ci", "plan", "--format", "json").json()["images"]
    root = tmp_path / "other"
    root.mkdir()
    other = ext4_disk(tmp_path, {**same, "etc/changed": "old", "gone": "x"})
    shutil.move(other, root / "one.img")
    with (root / "one.img").open("r+b") as file:
        file.write(b"boot code")
    store = DirectoryStore(path=repo.root / "image-repo")
    request = Request(
        spec=read(repo.root, "image-specs")["one"],
        fingerprint=image["fingerprint"],
        commit=commit,
        dirty=False,
    )
    context = replace(a_context(tmp_path, store=store), root=root)
    [built] = build_chains([[request]], context, accel=Acceleration(name="tcg"), jobs=1)
    assert built.ok, built.error
    published(repo)
    ran = repo.run("repo", "reproduce", "one")
    assert ran.code == 1, ran.err
    _, verdict, base, *lines, code, partition = ran.out.splitlines()
    assert verdict == "different"
    assert base.startswith("  base simple:one.img: sha")
    assert lines == [
        "  /etc/changed: size 3 → 5, content",
        "  /etc/program: mode 0700 → 0755",
        "  /gone: missing",
        "  /more: new",
    ]
    assert code == "  boot code: 1 block of 4 KiB, from byte 0"
    assert partition.startswith("  partition 1 (a Linux file system): ")


def test_what_stands_in_the_way_is_said_before_anything_is_built(tmp_path):
    repo = specs(tmp_path)
    repo.commit("Add a spec")
    repo.spec("one", "simple:image-specs/files/one.img", "#notes=never committed")
    ran = repo.run("build", "one", "--repo-dir", "image-repo")
    assert ran.code == 0, ran.err
    ran = repo.run("repo", "reproduce", "one", "--format", "json")
    assert ran.code == 1
    report = ran.json()
    assert report["verdict"] is None
    [obstacle] = report["obstacles"]
    assert "some files were not committed" in obstacle
    assert obstacle in ran.err
    assert "preparing" not in ran.err


REPRODUCES = """
import os, subprocess, sys
work, specs = sys.argv[1:]
command = [sys.executable, "-m", "lago_images", "-C", specs, "repo", "reproduce", "one"]
ran = subprocess.run(command, env={**os.environ, "TMPDIR": work}, stderr=subprocess.PIPE, text=True)
print(ran.returncode, ran.stderr)
"""


def test_too_little_room_for_both_disks_is_said_before_anything_is_built(repo, tmp_path):
    told = run_in_small_filesystem(tmp_path / "work", "2m", REPRODUCES, str(repo.root))
    assert "\n1 " in told
    assert "error: building one again and comparing the disks needs 2.0 MiB" in told
    assert "preparing" not in told


def test_a_clone_of_other_specs_is_told_so(repo, tmp_path):
    other = SpecsRepo.create(tmp_path / "other")
    other.spec("else", "simple:x.img")
    other.commit("Something else")
    ran = other.run("--repository", str(repo.root / "image-repo"), "repo", "reproduce", "one-layer")
    assert ran.code == 1
    assert "is not in this clone" in ran.err
    assert ran.out.splitlines()[-1] == "it cannot be built again"


def test_a_revision_that_there_is_not_is_refused(repo):
    ran = repo.run("repo", "reproduce", "one", "--revision", "7")
    assert ran.code == 2
    assert "revision 7 of one (x86_64) does not exist" in ran.err


def test_why_the_bytes_may_be_others_is_noted_before(tmp_path):
    """Moving archives, the appliance, other tools; nothing is in the way of building it."""
    repo = SpecsRepo.create(tmp_path / "specs")
    moment = ("#mirror=http://s.example/archive/debian", "#snapshot=20260131T120000Z")
    repo.spec("still", "bootstrap:debian-12", *moment)
    repo.spec("moving", "bootstrap:debian-12")
    layers = {"install": "install x", "write": "write /etc/motd:x"}
    for name, command in layers.items():
        for base in ("still", "moving"):
            repo.spec(f"{base}-{name}", f"layer:{base}", command)
    commit = repo.commit("Add the specs")
    planned = repo.run("ci", "plan", "--format", "json").json()["images"]
    prints = {each["name"]: each["fingerprint"] for each in planned}
    store = DirectoryStore(path=repo.root / "image-repo")

    def made(name, **more):
        return manifest(name, f"b-{name}", fingerprint=prints[name], commit=commit, **more)

    properties = dict(each.lstrip("#").split("=", 1) for each in moment)
    bases = {
        "still": made("still", properties=properties, tools={"mke2fs": "0.1"}),
        "moving": made("moving"),
    }
    images = [
        made(f"{base}-{name}", base=layer_on(bases[base], 1), engine=EngineRecord(name=engine))
        for base in bases
        for name, engine in (("install", "namespace"), ("write", "appliance"))
    ]
    publish_by_hand(store, *bases.values(), *images)
    found = {}
    for name in prints:
        ran = repo.run("repo", "reproduce", name, "--dry-run", "--format", "json")
        assert ran.code == 0, ran.err
        report = ran.json()
        assert all(f"note: {doubt}\n" in ran.err for doubt in report["doubts"])
        found[name] = [word for word in ("appliance", "move on") if word in str(report["doubts"])]
        if name == "still":
            [tool] = report["tools"]
            assert (tool["name"], tool["old"]) == ("mke2fs", "0.1")
            assert f"note: mke2fs 0.1 then, {tool['new'] or 'missing'} now\n" in ran.err
    assert found == {
        "still": [],
        "moving": ["move on"],
        "still-install": [],
        "still-write": ["appliance"],
        "moving-install": ["move on"],
        "moving-write": ["appliance"],
    }
