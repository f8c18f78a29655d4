"""``repo list``, ``show``, ``log`` and ``diff``, as people and scripts call them."""

import hashlib
import html
import json
import os
import pty
import re
import select
import subprocess
import sys
from dataclasses import dataclass, replace
from types import MappingProxyType

import pytest
from jsonschema import Draft202012Validator

from lago_images.repository.records.layout import BOOT_FILES, PACKAGES, RELEASES, SPEC
from lago_images.repository.records.manifest import BaseRecord
from lago_images.repository.records.release import ObjectDigest, PackageDiff, Released
from lago_images.repository.rendering.site import Site
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import (
    bound,
    copy_of,
    layer_on,
    manifest,
    overwrite,
    publish_by_hand,
    publisher,
    put,
    put_build,
    put_copy,
    put_release,
    release,
)
from tests.support.schemas import FOLDER
from tests.support.specs import SpecsRepo

FIRST = "bash 5.2-1 amd64\nkernel 6.1-1 amd64\nnano 7.2-1 amd64\n"
FIRST_BOOT = f"""\
{"a" * 64} 400 /boot/grub/grub.cfg
{"b" * 64} 9000000 /boot/initrd.img-6.1.0-1-amd64
{"c" * 64} 7340032 /boot/vmlinuz-6.1.0-1-amd64
- - /boot/efi
"""
SECOND_BOOT = f"""\
{"d" * 64} 400 /boot/grub/grub.cfg
{"b" * 64} 9000000 /boot/initrd.img-6.1.0-1-amd64
{"e" * 64} 8388608 /boot/vmlinuz-6.1.0-2-amd64
"""
FIRST_SPEC = "#name=Debian\ninstall nano\nrun-command true\nupdate\n"
SECOND_SPEC = "#name=Debian\n#notes=a new note\ninstall vim\nrun-command true\nupdate\n"
SECOND = "bash 5.2-2 amd64\nkernel 6.1-1 amd64\nvim 9.0-1 amd64\n"


def publish(store, number, made, packages, boot_files="", spec="", **more):
    """Release a build with its lists, as the real publisher binds them."""
    put_build(store, made)
    put_copy(store, made)
    overwrite(store, copy_of(made).packages, packages.encode())
    digests = {PACKAGES: digest(packages)}
    if boot_files:
        put(store, copy_of(made).boot_files, boot_files.encode())
        digests[BOOT_FILES] = digest(boot_files)
    if spec:
        put(store, copy_of(made).spec, spec.encode())
        digests[SPEC] = digest(spec)
    made_public = release(number, made, published=1_700_000_000 + 86_400 * number, **more)
    image = made_public.image
    objects = MappingProxyType({**image.objects, **digests})
    put_release(store, replace(made_public, image=replace(image, objects=objects)))


def digest(text):
    data = text.encode()
    return ObjectDigest(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


@dataclass(frozen=True)
class World:
    repo: SpecsRepo
    store: DirectoryStore

    @property
    def run(self):
        return self.repo.run

    @property
    def write(self):
        return self.repo.write


@pytest.fixture
def repo(tmp_path):
    """A repository with an image of two revisions, a withdrawn one, and a layer."""
    repo = SpecsRepo.create(tmp_path / "specs")
    store = DirectoryStore(path=repo.root / "image-repo")
    old = manifest(build_id="b1", created=1_690_000_000, packages=3)
    properties = {**old.properties, "notes": "a new note"}
    new = manifest(
        build_id="b2",
        created=1_695_000_000,
        packages=3,
        properties=properties,
        base=BaseRecord(ref="bootstrap:bookworm", digest="sha256:" + "1" * 64),
        commit="c2",
        dirty=True,
    )
    by_alice = Released(commit="c1", actor="alice")
    publish(store, 1, old, FIRST, FIRST_BOOT, FIRST_SPEC, released=by_alice)
    by_ci = Released(commit="c2", dirty=True, actor="bob", run="https://ci.example/7")
    changes = PackageDiff(since=1, upgraded=("bash 5.2-1 5.2-2",), added=("vim 9.0-1 amd64",))
    now = {"released": by_ci, "package_changes": changes}
    publish(store, 2, new, SECOND, SECOND_BOOT, SECOND_SPEC, **now)
    bad = manifest("broken", "x1")
    put_build(store, bad)
    put_copy(store, bad)
    put_release(store, release(1, bad, published=1_700_000_000))
    withdrawal = release(2, None, "broken", withdraws=1, published=1_700_500_000)
    put_release(
        store,
        replace(withdrawal, reason="it does not boot", released=Released(commit="c3")),
    )
    publisher(store, site=Site(name="test", base_url="https://images.example/r")).refresh()
    return World(repo=repo, store=store)


def document(repo, name, *args):
    """Run a command with ``--format json``, and hold what it prints against its schema."""
    ran = repo.run("repo", *args, "--format", "json")
    assert ran.code == 0, ran.err
    schema = json.loads((FOLDER / f"{name}.schema.json").read_bytes())
    plain = json.loads(ran.out)
    Draft202012Validator(schema).validate(plain)
    return plain


def test_list_filters_by_pattern_architecture_and_state(repo):
    def names(*args):
        listed = document(repo, "image-list", "list", *args)
        return [(image["name"], image["revision"], image["state"]) for image in listed["images"]]

    assert names() == [("debian-12", 2, "current")]
    assert names("--all") == [("debian-12", 1, "offered"), ("debian-12", 2, "current")]
    assert names("deb*", "--arch", "x86_64") == names()
    assert names("fedora*") == []
    assert names("--arch", "aarch64") == []
    assert names("--state", "withdrawn") == [("broken", 1, "withdrawn")]
    assert names("--state", "any") == [("broken", 1, "withdrawn"), ("debian-12", 2, "current")]


def test_list_shows_how_long_ago_it_was_built_and_the_reason_of_a_withdrawal(repo):
    head, broken, debian = repo.run("repo", "list", "--state", "any").out.splitlines()
    assert head.split()[-4:] == ["size", "fingerprint", "commit", "state"]
    assert broken.endswith("withdrawn: it does not boot")
    assert re.search(r"  \d+ (y|mo) ago  ", debian)


def test_outdated_packages_are_those_that_a_newer_build_of_the_same_system_has_anew(repo):
    older = manifest("older", "o1", created=1_690_000_000, packages=3)
    publish(repo.store, 1, older, FIRST)
    other = manifest("other", "x1", packages=1, properties={**older.properties, "osinfo": "x"})
    publish(repo.store, 1, other, "bash 1 amd64\n")
    listed = document(repo, "image-list", "list", "--outdated")["images"]
    assert {image["name"]: image["outdated"] for image in listed} == {
        "debian-12": 0,
        "older": 1,
        "other": 0,
    }
    only = document(repo, "image-list", "list", "older", "--outdated")["images"]
    assert [image["outdated"] for image in only] == [1]
    head, line = repo.run("repo", "list", "older", "--outdated").out.splitlines()
    assert (head.split()[-2:], line.split()[-3:]) == (["older", "here"], ["1", "of", "3"])
    assert document(repo, "image-list", "list", "older")["images"][0]["outdated"] is None


def test_a_package_in_several_versions_is_not_older_than_itself(repo):
    twin = manifest("twin", "t1", packages=2, properties={"osinfo": "fedora44"})
    publish(repo.store, 1, twin, "kernel 1 x86_64\nkernel 2 x86_64\n")
    [image] = document(repo, "image-list", "list", "twin", "--outdated")["images"]
    assert image["outdated"] == 0


def test_a_damaged_list_of_packages_leaves_its_image_uncounted_and_the_others_counted(repo):
    older = manifest("older", "o1", created=1_690_000_000, packages=3)
    publish(repo.store, 1, older, FIRST)
    overwrite(repo.store, copy_of(older).packages, b"\xff")
    listed = document(repo, "image-list", "list", "--outdated")["images"]
    assert {image["name"]: image["outdated"] for image in listed} == {
        "debian-12": 0,
        "older": None,
    }


def test_show_prints_every_fact_of_an_image(repo):
    page = document(repo, "image-page", "show", "debian-12")
    newest, oldest = page["revisions"]
    assert (newest["state"], oldest["state"]) == ("current", "offered")
    assert newest["run"] == "https://ci.example/7"
    assert page["properties"]["notes"] == "a new note"
    text = repo.run("repo", "show", "debian-12").out
    for fact in [
        "debian-12 (x86_64): Debian® 12 (bookworm)",
        "2, current",
        "2023-11-16 22:13Z by bob",
        "https://ci.example/7",
        "c2, and files that were not committed",
        "bootstrap:bookworm",
        newest["disk"]["sha512"],
        f"https://images.example/r/{newest['folder']}debian-12.qcow2.xz",
        "virt-builder --source https://images.example/r/index --no-check-signature \\\n",
        "  debian-12.qcow2.xz' | sha256sum --check &&\n",
        "\nEND\nlago init --template-repo-path https://images.example/r/repo.metadata\n",
        "bios 31 s, uefi 53 s (TCG: emulation without KVM)",
        "2 packages since revision 1: bash 5.2-1 → 5.2-2, vim 9.0-1 amd64 is new; lago-images repo",
    ]:
        assert fact in text


def test_show_has_the_commands_of_the_image_s_page(repo):
    """Of each architecture."""
    publish_by_hand(repo.store, manifest("debian-12", "a1", arch="aarch64"))
    publisher(repo.store, site=Site(name="test", base_url="https://images.example/r")).refresh()
    shown = html.unescape((repo.store.path / "catalogue/debian-12.html").read_text())
    for arch in ("aarch64", "x86_64"):
        page = document(repo, "image-page", "show", "debian-12", "--arch", arch)
        assert {"virt-builder", "lago", "libvirt"} <= {each["title"] for each in page["use"]}
        text = repo.run("repo", "show", "debian-12", "--arch", arch).out
        for each in page["use"]:
            assert each["text"] in shown
            assert each["text"] in text
        assert f"debian-12 --arch {arch} --format qcow2" in text
        assert ("template_version: " in text) == (arch == "aarch64")


def test_show_has_every_base_below_an_image_and_every_layer_above_it(repo):
    base = manifest(build_id="b1")
    middle = manifest("with-nfs", "l1", base=layer_on(base, 1))
    top = manifest("with-kerberos", "t1", base=layer_on(middle, 1))
    publish(repo.store, 1, middle, FIRST, base=bound(base, 1))
    publish(repo.store, 1, top, FIRST, base=bound(middle, 1))
    page = document(repo, "image-page", "show", "debian-12")
    assert [each["name"] for each in page["bases"]] == ["bootstrap:bookworm"]
    [layer] = page["layers"]
    assert (layer["name"], layer["revision"]) == ("with-nfs", 1)
    assert layer["note"] == "built on revision 1"
    assert [each["name"] for each in layer["layers"]] == ["with-kerberos"]
    text = repo.run("repo", "show", "debian-12").out
    assert (
        "\nwhat is built on it\n"
        "  with-nfs (revision 1, built on revision 1)\n"
        "    with-kerberos (revision 1)\n"
    ) in text
    page = document(repo, "image-page", "show", "with-kerberos")
    names = [(each["name"], each["revision"]) for each in page["bases"]]
    assert names == [("with-nfs", 1), ("debian-12", 1), ("bootstrap:bookworm", None)]
    text = repo.run("repo", "show", "with-kerberos").out
    assert (
        "\nwhat it is built on\n"
        "  with-nfs (revision 1)\n"
        "    debian-12 (revision 1, revision 2 is offered now)\n"
        "      bootstrap:bookworm"
    ) in text
    assert "what is built on it" not in text
    text = repo.run("repo", "show", "debian-12", "--revision", "1").out
    assert "\nwhat revision 2 is built on\n  bootstrap:bookworm" in text


def test_show_reports_an_image_that_is_no_longer_offered(repo):
    text = repo.run("repo", "show", "broken").out
    assert "1, withdrawn: it does not boot" in text
    assert "how to use it" not in text


def test_show_and_the_page_say_how_to_log_in(tmp_path):
    """As the publisher's own checkout has it, of what an image stands on, too."""
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.disk("one.img")
    repo.spec("one", "simple:one.img", "#root-password=open sesame")
    repo.spec("layer", "layer:one")
    repo.commit()
    assert repo.run("build").code == 0
    [revision] = document(repo, "image-page", "show", "layer")["revisions"]
    login = {"user": "root", "password": "open sesame", "has_password": True, "has_key": False}
    assert revision["access"] == {"logins": [login], "cloud_init": False}
    assert (
        "  log in              root: password open sesame\n" in repo.run("repo", "show", "one").out
    )
    page = (repo.root / "image-repo/catalogue/layer.html").read_text()
    assert "<dt>Log in</dt><dd>root: password open sesame</dd>" in page


def test_show_takes_a_revision_and_refuses_a_withdrawal(repo):
    text = repo.run("repo", "show", "debian-12", "--revision", "1").out
    assert "1, offered" in text
    assert "\nhow to use revision 2, which clients get: lago\n" in text
    ran = repo.run("repo", "show", "broken", "--revision", "2")
    assert ran.code == 2
    assert "broken has no revision 2 with a build" in ran.err


def test_an_unknown_name_gets_a_suggestion(repo):
    ran = repo.run("repo", "show", "debain-12")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines() == [
        "error: no image debain-12 was ever published",
        "hint: did you mean 'debian-12'?",
    ]


def test_an_image_of_several_architectures_needs_arch(repo):
    publish_by_hand(repo.store, manifest("debian-12", "a1", arch="aarch64"))
    ran = repo.run("repo", "show", "debian-12")
    assert ran.code == 2
    assert "debian-12 is published for aarch64, x86_64" in ran.err
    assert "(aarch64)" in repo.run("repo", "show", "debian-12", "--arch", "aarch64").out


def test_the_log_lists_who_did_what_newest_first(repo):
    told = document(repo, "log", "log")["events"]
    assert [(event["name"], event["kind"], event["about"]) for event in told] == [
        ("broken", "withdrawn", 1),
        ("debian-12", "released", 2),
        ("debian-12", "released", 1),
        ("broken", "released", 1),
    ]
    text = repo.run("repo", "log", "debian-12", "-n", "1").out.splitlines()
    assert text == [
        "2023-11-16 22:13Z  debian-12 (x86_64): released revision 2 by bob",
        "    commit: c2, and files that were not committed",
        "    run: https://ci.example/7",
    ]


def test_the_log_lists_withdrawals_and_rollbacks(repo):
    assert repo.run("repo", "rollback", "debian-12", "--reason", "too new").code == 0
    assert repo.run("repo", "yank", "debian-12", "--reason", "worse").code == 0
    kinds = [
        (event["kind"], event["about"], event["reason"])
        for event in document(repo, "log", "log", "debian-12")["events"]
    ]
    assert ("rolled back", 1, "back to revision 1: too new") in kinds
    assert [about for kind, about, _ in kinds if kind == "withdrawn"] == [1, 3]


def test_a_rollback_shows_the_commit_of_its_bytes_everywhere(tmp_path):
    """The operator has something else checked out, which nobody has published."""
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.disk("one.img")
    repo.write(".gitignore", "/image-repo/\n")
    repo.spec("one", "simple:one.img")
    repo.commit()
    repo.spec("one", "simple:one.img", "#notes=in no commit")
    assert repo.run("build").code == 0
    first = repo.head
    repo.spec("one", "simple:one.img", "#notes=committed")
    repo.commit()
    assert repo.run("build").code == 0
    repo.spec("one", "simple:one.img", "#notes=another")
    repo.commit()
    assert repo.run("repo", "rollback", "one", "--reason", "worse").code == 0
    [listed] = document(repo, "image-list", "list")["images"]
    shown = document(repo, "image-page", "show", "one")["revisions"][0]
    logged = document(repo, "log", "log")["events"][0]
    assert listed["revision"] == 3
    for each in (listed, shown, logged):
        assert (each["commit"], each["dirty"]) == (first, True)
    assert f"  {first[:12]}+" in repo.run("repo", "list").out
    page = (repo.root / "image-repo/catalogue/one.html").read_text()
    assert f'<dd class="mono">{first[:12]}<small>with changes that are in no commit' in page
    assert repo.run("repo", "provenance", "one").out.count(first) >= 1


def test_what_was_rolled_back_is_not_built_again_while_a_record_is_lost(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.disk("one.img")
    repo.write(".gitignore", "/image-repo/\n")
    for note in ("good", "bad"):
        repo.spec("one", "simple:one.img", f"#notes={note}")
        repo.commit()
        assert repo.run("build").code == 0
    assert repo.run("repo", "rollback", "one", "--reason", "bad").code == 0
    lost = "releases/one/x86_64/1.json"
    (repo.root / "image-repo" / lost).unlink()
    ran = repo.run("build")
    assert f"{lost} is missing; restore it from a copy" in ran.err
    [planned] = repo.run("ci", "plan", "--format", "json").json()["images"]
    assert planned["action"] == "keep"
    assert planned["note"] == (
        f"{lost} is missing; restore it from a copy, or name one to build it"
    )
    [listed] = document(repo, "image-list", "list")["images"]
    assert listed["revision"] == 3
    assert repo.run("build", "one").code == 0


def test_what_was_built_before_the_first_commit_is_made_of_it_by_name(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.disk("one.img")
    repo.write(".gitignore", "/image-repo/\n")
    repo.spec("one", "simple:one.img")
    assert repo.run("build").code == 0
    note = "unchanged since revision 1, of files that were not committed"
    assert repo.run("ci", "plan", "--format", "json").json()["images"][0]["note"] == note
    assert "    commit: unknown, and files that were not committed\n" in repo.run("repo", "log").out
    repo.commit()
    planned = repo.run("ci", "plan", "--format", "json").json()["images"][0]["note"]
    assert planned == f"{note}; lago-images ci rebuild one makes it of the commit"
    assert repo.run("ci", "rebuild", "one").code == 0
    [listed] = document(repo, "image-list", "list")["images"]
    assert (listed["commit"], listed["dirty"]) == (repo.head, False)
    planned = repo.run("ci", "plan", "--format", "json").json()["images"][0]["note"]
    assert planned == f"unchanged since revision 2, of commit {repo.head[:7]}"


def test_diff_compares_the_newest_with_the_one_before_it(repo):
    compared = document(repo, "comparison", "diff", "debian-12")
    assert (compared["old"]["revision"], compared["new"]["revision"]) == (1, 2)
    assert [one["name"] for one in compared["packages"]["added"]] == ["vim"]
    assert [one["name"] for one in compared["packages"]["removed"]] == ["nano"]
    assert compared["packages"]["upgraded"] == [{"name": "bash", "old": "5.2-1", "new": "5.2-2"}]
    assert compared["properties"] == [{"name": "notes", "old": None, "new": "a new note"}]
    assert compared["commands"] == [
        "@@ -1,2 +1,2 @@",
        "-install nano",
        "+install vim",
        " run-command true",
    ]
    assert compared["is_other_base"] is True
    assert [one["path"] for one in compared["boot_files"]["added"]] == [
        "/boot/vmlinuz-6.1.0-2-amd64"
    ]
    assert compared["boot_files"]["unread"] == ["/boot/efi"]
    text = repo.run("repo", "diff", "debian-12").out
    for line in [
        "debian-12 (x86_64): revision 1 → revision 2",
        "packages: 1 added, 1 removed, 1 with another version",
        "  + vim 9.0-1 amd64",
        "  - nano 7.2-1 amd64",
        "  ~ bash 5.2-1 → 5.2-2",
        "boot files: 1 added, 1 removed, 1 with other content",
        "  + /boot/vmlinuz-6.1.0-2-amd64 8.0 MiB",
        "  - /boot/vmlinuz-6.1.0-1-amd64 7.0 MiB",
        "  ~ /boot/grub/grub.cfg 400 B → 400 B",
        "  /boot/efi is not compared: in one of them it was not read",
        "property notes: new, 'a new note'",
        "commands: 1 added, 1 removed",
        "  @@ -1,2 +1,2 @@",
        "  - install nano",
        "  + install vim",
        "    run-command true",
    ]:
        assert line in text.splitlines()


def test_diff_takes_revisions_in_any_order(repo):
    compared = document(repo, "comparison", "diff", "debian-12", "2", "1")
    assert [one["name"] for one in compared["packages"]["added"]] == ["nano"]


def test_diff_takes_a_build_folder_and_a_package_list(repo, tmp_path):
    staged = repo.store.path / manifest(build_id="b1").key.staging.folder
    (staged / PACKAGES).write_text(FIRST)
    compared = document(repo, "comparison", "diff", "debian-12", "2", str(staged))
    assert compared["boot_files"] is None
    (staged / BOOT_FILES).write_text(FIRST_BOOT)
    compared = document(repo, "comparison", "diff", "debian-12", "2", str(staged))
    assert compared["new"]["build"] == "b1"
    assert [one["path"] for one in compared["boot_files"]["removed"]] == [
        "/boot/vmlinuz-6.1.0-2-amd64"
    ]
    assert (compared["is_other_base"], compared["commands"]) == (True, None)
    public = repo.store.path / copy_of(manifest(build_id="b1")).folder
    assert document(repo, "comparison", "diff", "debian-12", "1", str(public))["commands"] == []
    alone = tmp_path / "packages.txt"
    alone.write_text(FIRST)
    compared = document(repo, "comparison", "diff", "debian-12", "1", str(alone))
    assert compared["packages"] == {"added": [], "removed": [], "upgraded": []}
    assert compared["properties"] is None
    assert repo.run("repo", "diff", "debian-12", "1", str(alone)).out.splitlines()[1:] == [
        "commands: those of one or both are not known",
        "packages: the same",
        "boot files: those of one or both are not recorded",
    ]


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["debian-12", "9"], "revision 9 of debian-12 (x86_64) does not exist"),
        (["broken", "1", "2"], "revision 2 of broken (x86_64) is a withdrawal and has no build"),
        (["debian-12", "missing"], "missing is neither a revision nor a file or folder"),
        (["debian-12", "lago-images.toml"], "lago-images.toml is not a list of packages"),
        (["debian-12", "image-specs"], "image-specs has no manifest.json"),
        (["broken"], "every revision of broken is withdrawn"),
    ],
)
def test_builds_that_cannot_be_compared_are_refused_with_a_hint(repo, args, error):
    repo.write("lago-images.toml", "# nothing\n")
    repo.write("image-specs/README", "")
    ran = repo.run("repo", "diff", *args)
    assert (ran.code, ran.out) == (2, "")
    first, hint = ran.err.splitlines()
    assert first.startswith(f"error: {error}")
    assert hint.startswith("hint: ")


@pytest.mark.parametrize("name", [PACKAGES, BOOT_FILES, SPEC])
def test_a_list_other_than_the_released_one_is_not_compared(repo, name):
    overwrite(repo.store, copy_of(manifest(build_id="b2")).folder + name, b"bash 6 amd64\n")
    ran = repo.run("repo", "diff", "debian-12")
    assert ran.code == 1
    assert "is not what was released" in ran.err


def test_an_unreadable_record_is_reported_and_list_exits_1(repo):
    overwrite(repo.store, f"{RELEASES}broken/x86_64/2.json", b"{")
    ran = repo.run("repo", "list", "--state", "any", "--format", "json")
    assert ran.code == 1
    assert "releases/broken/x86_64/2.json" in ran.err
    states = {one["name"]: one["state"] for one in json.loads(ran.out)["images"]}
    assert states == {"broken": "damaged", "debian-12": "current"}


def on_terminal(repo, width, *args, **environ):
    """Run a command on a terminal of so many columns, and return what it shows."""
    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "lago_images", *args]
    env = {**repo.repo.env(), "COLUMNS": str(width), "TERM": "xterm", **environ}
    with subprocess.Popen(argv, cwd=repo.repo.root, env=env, stdout=slave, stderr=slave):
        os.close(slave)
        shown = b""
        # Linux answers EIO when the last process has closed its end.
        while select.select([master], [], [], 60)[0]:
            try:
                piece = os.read(master, 65536)
            except OSError:
                break
            shown += piece
    os.close(master)
    return shown.decode()


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize(
    "args",
    [
        ("repo", "list", "--state", "any"),
        ("repo", "log"),
        ("repo", "diff", "debian-12"),
        ("repo", "show", "debian-12"),
        ("repo", "verify"),
        ("repo", "gc"),
        ("repo", "provenance", "debian-12"),
        ("repo", "yank", "debian-12", "--reason", "it is slow", "--dry-run"),
        ("repo", "yank", "debian-12", "--reason", "it is slow"),
        ("repo", "rollback", "debian-12", "--to", "1", "--dry-run"),
        ("repo", "rollback", "debian-12", "--to", "1", "--reason", "it is slow"),
        ("repo", "show", "no-such-image-was-ever-published-here"),
        ("repo", "list", "no-such-image-was-ever-published-here"),
        ("lint",),
        ("doctor",),
        ("-C", "image-repo", "doctor"),
    ],
    ids=" ".join,
)
def test_no_line_is_wider_than_the_terminal(repo, width, args):
    below = manifest(build_id="b2")
    layer = manifest("debian-12-with-an-nfs-server", "l1", base=layer_on(below, 2))
    publish(repo.store, 1, layer, FIRST, base=bound(below, 2))
    repo.write("image-specs/broken-spec", "#base=simple:none\nrun-command\nno-such-command x\n")
    shown = on_terminal(repo, width, *args)
    # Commands to paste are the terminal's to wrap: a line of a here-document means what it says.
    shown = shown.partition("how to use it")[0]
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).splitlines()
    assert lines
    # What people copy is not cut: URLs, commits, file names.
    assert not [line for line in lines if len(line) > width and " " in line.strip()]


def test_colour_is_used_on_capable_terminals_unless_no_color_is_set(repo):
    assert "\x1b[32m" in on_terminal(repo, 80, "repo", "diff", "debian-12")
    assert "\x1b[" not in on_terminal(repo, 80, "repo", "diff", "debian-12", NO_COLOR="1")
    assert "\x1b[" not in on_terminal(repo, 80, "repo", "diff", "debian-12", TERM="dumb")
    assert "\x1b[" not in repo.run("repo", "diff", "debian-12").out


def test_json_documents_match_the_published_schemas(repo):
    verified = document(repo, "verification", "verify")
    assert verified["ok"] is True
    assert document(repo, "cleaning", "gc")["applied"] is False
    other = ("--base-url", "https://other.example.org")
    assert "repo.metadata" in document(repo, "refreshment", "refresh", *other)["written"]
    # The settings say none: that stays.
    assert document(repo, "refreshment", "refresh")["written"] == []
    traced = document(repo, "provenance-trace", "provenance", "debian-12")
    assert traced["steps"][0]["revision"] == 2
    repo.write("image-specs/broken-spec", "#base=simple:none\n")
    ran = repo.run("lint", "--format", "json")
    assert ran.code == 2
    schema = json.loads((FOLDER / "lint.schema.json").read_bytes())
    Draft202012Validator(schema).validate(json.loads(ran.out))
    assert json.loads(ran.out)["problems"]


def test_show_is_of_what_clients_get_and_not_of_a_newer_revision_that_is_withdrawn(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs")
    store = DirectoryStore(path=repo.root / "image-repo")
    builds = [manifest("small", build_id=f"b{number}") for number in (1, 2)]
    publish_by_hand(store, *builds)
    put_release(store, replace(release(3, None, withdraws=2, reason="bad"), name="small"))
    for args, shown in (((), "1, current"), (("--revision", "2"), "2, withdrawn: bad")):
        ran = repo.run("repo", "show", "small", *args)
        assert ran.code == 0, ran.err
        assert re.search(rf"^ *revision:? +{re.escape(shown)}$", ran.out, re.MULTILINE), ran.out
    assert "what revision 1 is built on" in ran.out
