"""What a build would get otherwise today, as archives, template sources and signed lists say."""

import hashlib
import io
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lago_images.console import Console
from lago_images.jobs.plan import plan
from lago_images.jobs.workspace import Workspace
from lago_images.planning.git import Git
from lago_images.planning.history import Ask
from lago_images.planning.model import Plan
from lago_images.repository.records.layout import outdated_key
from lago_images.settings import load
from lago_images.storage.directory.store import DirectoryStore
from tests.support.debian_archive import Archive, Stanza, trusting
from tests.support.files import serving
from tests.support.keys import home, make_key
from tests.support.planning import DAY, actions, image, why
from tests.support.repository import fill
from tests.support.schemas import validator
from tests.support.specs import SpecsRepo
from tests.tools import need

need("apt-get", "gpg", "gpgv", "git")

OLD = "3.0.15-1~deb12u1"
NEW = "3.0.16-1~deb12u1"
BASE = f"bash 5.2.15-2+b7 amd64\nopenssl {OLD} amd64\nperl-base 5.36.0-7 amd64\n"
LAYER = BASE + "nfs-common 1:2.6.2-4 amd64\n"
MAIN = (
    Stanza(name="bash", version="5.2.15-2+b7", more=("Essential: yes",)),
    Stanza(name="openssl", version=OLD),
    Stanza(name="perl-base", version="5.36.0-7", more=("Provides: perlapi-5.36.0",)),
    Stanza(name="nfs-common", version="1:2.6.2-4", more=("Depends: bash",)),
    Stanza(name="tgt", version="1:1.0.85-1"),
)
NEWER = Stanza(name="openssl", version=NEW)


@dataclass
class World:
    """A specs repository and what is published of it, beside an archive that moves on."""

    repo: SpecsRepo
    archive: Archive
    environ: dict[str, str]
    now: int = 1_000 * DAY
    said: io.StringIO = field(default_factory=io.StringIO)

    @property
    def store(self) -> DirectoryStore:
        return DirectoryStore(path=self.repo.root / "image-repo")

    def plan(self, **ask) -> Plan:
        root = self.repo.root
        workspace = Workspace(
            root=root,
            settings=load(root, {}),
            console=Console(stream=self.said),
            environ=self.environ,
            store=self.store,
            git=Git.find(root),
            cache=root.parent / "cache",
            logs=root.parent / "logs",
            clock=lambda: self.now,
        )
        return plan(workspace, Ask(**ask))

    def publish(self, *, packages=None, digests=None) -> None:
        self.repo.commit("Add the specs")
        made = self.plan()
        fill(self.store, made, created=self.now, packages=packages or {}, digests=digests or {})

    def outdated(self, **ask) -> Plan:
        return self.plan(outdated=True, **ask)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return make_key(folder, "archive"), make_key(folder, "stranger")


@pytest.fixture
def server():
    with serving() as files:
        yield files


@pytest.fixture
def world(tmp_path, server, keys):
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.write(".gitignore", "image-repo\n")
    archive = Archive(server=server, key=keys[0])
    return World(repo=repo, archive=archive, environ=trusting(tmp_path / "apt", keys[0]))


@pytest.fixture
def debian(world):
    """A base and two layers on it, built when the archive had what is installed."""
    world.archive.publish(bookworm=MAIN)
    world.repo.spec("base", "bootstrap:debian-12", f"#mirror={world.archive.mirror}")
    world.repo.spec("nfs", "layer:base", "install nfs-common")
    world.repo.spec("plain", "layer:base", "mkdir /srv/x")
    world.publish(packages={"base": BASE, "nfs": LAYER, "plain": BASE})
    return world


def test_what_the_archives_have_is_not_built_again_however_old_it_is(debian):
    debian.now += 400 * DAY
    made = debian.outdated(stale_days=30)
    assert set(actions(made).values()) == {"keep"}
    assert image(made, "base").note == f"unchanged since revision 1, of commit {made.head[:7]}"
    assert set(actions(debian.plan(stale_days=30)).values()) == {"build"}


def test_a_newer_package_of_a_base_builds_it_with_its_layers_and_says_which(debian):
    debian.archive.publish(bookworm_security=[NEWER])
    made = debian.outdated()
    assert set(actions(made).values()) == {"build"}
    assert why(made, "base") == [("outdated", f"openssl {OLD} → {NEW}")]
    assert why(made, "plain") == [("base", "its base base is built")]
    assert why(made, "nfs") == [("base", "its base base is built")]


def test_a_newer_package_of_a_layer_builds_that_layer_alone(debian):
    newer = Stanza(name="nfs-common", version="1:2.6.2-4+deb12u1", more=("Depends: bash",))
    debian.archive.publish(bookworm=[*MAIN, newer])
    made = debian.outdated()
    assert actions(made) == {"base": "keep", "nfs": "build", "plain": "keep"}
    assert why(made, "nfs") == [("outdated", "nfs-common 1:2.6.2-4 → 1:2.6.2-4+deb12u1")]


def test_what_changes_is_counted_and_new_dependencies_are_part_of_it(debian):
    needy = Stanza(
        name="openssl", version=NEW, more=("Depends: libssl3, perlapi-5.36.0, libnew (>= 2)",)
    )
    more = [Stanza(name="libssl3", version=NEW), Stanza(name="libnew", version="2-1")]
    bash = Stanza(name="bash", version="5.2.15-3", more=("Essential: yes",))
    debian.archive.publish(bookworm=[*MAIN, needy, bash, *more])
    [(kind, detail)] = why(debian.outdated(), "base")
    assert kind == "outdated"
    assert detail == (
        f"bash 5.2.15-2+b7 → 5.2.15-3, openssl {OLD} → {NEW}, libnew 2-1 amd64 is new and 1 more"
    )


def test_what_an_older_package_provides_it_still_provides(debian):
    """Its own entry is in no archive any more: apt would look for another that does."""
    module = Stanza(name="openssl", version=NEW, more=("Depends: perlapi-5.36.0",))
    perl = Stanza(name="perl-base", version="5.36.0-7+deb12u1", more=("Provides: perlapi-5.36.0",))
    other = Stanza(name="other-perl", version="1", more=("Provides: perlapi-5.36.0",))
    kept = [each for each in MAIN if each.name != "perl-base"]
    debian.archive.publish(bookworm=[*kept, module, perl, other])
    [(_, detail)] = why(debian.outdated(), "base")
    assert detail == f"openssl {OLD} → {NEW}, perl-base 5.36.0-7 → 5.36.0-7+deb12u1"


def test_what_cannot_be_installed_makes_nothing_outdated(debian):
    debian.archive.publish(
        bookworm=[*MAIN, Stanza(name="openssl", version=NEW, more=("Depends: nowhere",))]
    )
    assert set(actions(debian.outdated()).values()) == {"keep"}


UNKNOWN = "whether a build would give something else cannot be known: "


def check_unknown(world, what, *, warned=True):
    """Nothing is built for what is not known, it is said; and age decides where it is given."""
    made = world.outdated()
    assert set(actions(made).values()) == {"keep"}
    assert UNKNOWN in image(made, "base").note
    assert what in image(made, "base").note
    assert (what in world.said.getvalue()) == warned
    assert set(actions(world.outdated(stale_days=30)).values()) == {"keep"}
    world.now += 30 * DAY
    aged = world.outdated(stale_days=30)
    assert actions(aged)["base"] == "build"
    [(kind, detail)] = why(aged, "base")
    assert kind == "stale"
    assert detail.startswith(f"revision 1 was built 30 days ago, and {UNKNOWN}")


def test_a_mirror_that_fails_is_no_mirror_without_news(debian):
    debian.archive.publish(bookworm_security=[NEWER])
    del debian.archive.server.content["/debian-security/dists/bookworm-security/InRelease"]
    check_unknown(debian, "the archives of Debian 12 (bookworm) cannot be read: E: ")


def test_an_archive_that_a_stranger_signed_is_not_believed(debian, keys):
    stranger = Archive(server=debian.archive.server, key=keys[1], has=debian.archive.has)
    stranger.publish(bookworm_security=[NEWER])
    check_unknown(debian, "the archives of Debian 12 (bookworm) cannot be read: E: ")


def test_a_list_that_is_not_the_signed_one_is_not_believed(debian):
    debian.archive.publish(bookworm_security=[Stanza(name="openssl", version=OLD)])
    path = "/debian-security/dists/bookworm-security/main/binary-amd64/Packages"
    debian.archive.server.content[path] = str(NEWER).encode()
    check_unknown(debian, "the archives of Debian 12 (bookworm) cannot be read: E: ")


def test_a_package_of_nobodys_archive_is_not_known(debian):
    debian.archive.publish(bookworm=[each for each in MAIN if each.name != "perl-base"])
    check_unknown(debian, "its archives do not have perl-base", warned=False)


def test_an_image_without_a_list_of_packages_is_not_known(world):
    world.archive.publish(bookworm=MAIN)
    world.repo.spec("base", "bootstrap:debian-12", f"#mirror={world.archive.mirror}")
    world.publish()
    check_unknown(world, "its list of packages is not in the repository", warned=False)


def test_a_moment_of_the_past_has_no_news_and_is_not_asked(world):
    moment = ("#snapshot=20260131T120000Z", f"#mirror={world.archive.mirror}")
    world.repo.spec("base", "bootstrap:debian-12", *moment)
    world.publish(packages={"base": BASE})
    world.now += 400 * DAY
    assert actions(world.outdated(stale_days=30)) == {"base": "keep"}
    assert world.archive.server.requests == []


def template(server, revision, *, digits="0" * 128):
    entry = f"[tiny]\narch=x86_64\nfile=tiny.xz\nsize=1\nrevision={revision}\n"
    server.content["/index"] = f"{entry}checksum[sha512]={digits}\n".encode()


def test_a_newer_template_builds_what_stands_on_it(world, server):
    template(server, 1)
    world.repo.write("lago-images.toml", f'[[template-sources]]\nurl = "{server.url}/index"\n')
    world.repo.spec("base", "libguestfs:tiny", "mkdir /srv/x")
    world.repo.spec("plain", "layer:base", "mkdir /srv/y")
    world.publish(digests={"base": f"sha512:{'0' * 128}"})
    assert set(actions(world.outdated()).values()) == {"keep"}
    template(server, 2, digits="1" * 128)
    made = world.outdated()
    detail = f"its base is revision 2 of tiny in {server.url}/index now"
    assert why(made, "base") == [("outdated", detail)]
    assert actions(made)["plain"] == "build"


def test_packages_from_a_guests_own_sources_are_not_known(world, server):
    template(server, 1)
    world.repo.write("lago-images.toml", f'[[template-sources]]\nurl = "{server.url}/index"\n')
    world.repo.spec("base", "libguestfs:tiny", "update", "install nginx")
    world.publish(digests={"base": f"sha512:{'0' * 128}"})
    what = "install, update may fetch packages, from sources that only the guest knows"
    check_unknown(world, what, warned=False)


def test_a_template_source_that_fails_is_no_source_without_news(world, server):
    template(server, 1)
    world.repo.write("lago-images.toml", f'[[template-sources]]\nurl = "{server.url}/index"\n')
    world.repo.spec("base", "libguestfs:tiny")
    world.publish(digests={"base": f"sha512:{'0' * 128}"})
    del server.content["/index"]
    check_unknown(world, f"{server.url}/index")


def test_a_newer_file_of_a_signed_list_builds_what_stands_on_it(world, server, keys):
    def listed(*names):
        text = "".join(f"{hashlib.sha256(n.encode()).hexdigest()}  {n}\n" for n in names)
        with home() as gpg:
            gpg.import_keys(keys[0].secret.read_bytes())
            by = ("--clearsign", "--local-user", keys[0].fingerprint)
            server.content["/d/SHA256SUMS"] = gpg.call(*by, stdin=text.encode())

    listed("disk-1.img")
    world.repo.write("key.asc", Path(keys[0].public).read_text())
    lists = (f"#base-checksums={server.url}/d/SHA256SUMS", "#base-key=key.asc")
    world.repo.spec("base", f"simple:{server.url}/d/disk-*.img", *lists)
    first = f"sha256:{hashlib.sha256(b'disk-1.img').hexdigest()}"
    world.publish(digests={"base": first})
    assert actions(world.outdated()) == {"base": "keep"}
    listed("disk-1.img", "disk-2.img")
    [(kind, detail)] = why(world.outdated(), "base")
    assert kind == "outdated"
    assert detail.startswith(f"its base is disk-2.img in {server.url}/d/SHA256SUMS, signed by ")
    assert [path for path, _, _ in server.requests if path.endswith(".img")] == []


def test_a_disk_that_its_spec_binds_is_never_outdated(world):
    world.repo.disk("disk.img")
    world.repo.spec("base", "simple:disk.img")
    world.publish()
    world.now += 400 * DAY
    assert actions(world.outdated(stale_days=30)) == {"base": "keep"}


def test_lists_of_images_say_what_a_build_would_get_today(debian):
    debian.archive.publish(bookworm_security=[NEWER])
    debian.repo.spec("plain", "layer:base", "mkdir /srv/y")
    listed = ("repo", "list", "--outdated")
    document = debian.repo.run(*listed, "--format", "json", environ=debian.environ).json()
    found = {each["name"]: each["upstream"] for each in document["images"]}
    change = {"name": "openssl", "old": OLD, "new": NEW}
    assert found["base"] == {
        "base": "",
        "packages": {"added": [], "removed": [], "upgraded": [change]},
        "unknown": "",
    }
    assert found["nfs"]["packages"] == {"added": [], "removed": [], "upgraded": []}
    # Its spec is not what was published.
    assert found["plain"] is None
    lines = debian.repo.run(*listed, environ=debian.environ).out.splitlines()
    ends = {line.split()[0]: line.rstrip() for line in lines[1:]}
    assert ends["base"].endswith("  1 other package")
    assert ends["nfs"].endswith("  the same")
    (debian.repo.root / "image-specs/plain").write_text("#base=\n")
    broken = debian.repo.run(*listed, "--format", "json", environ=debian.environ)
    assert "what builds would get today is not known" in broken.err
    assert [each["upstream"] for each in broken.json()["images"]] == [None, None, None]


def test_the_command_line_asks_and_says(debian):
    debian.archive.publish(bookworm_security=[NEWER])
    ran = debian.repo.run("ci", "plan", "--outdated", "--exit-code", environ=debian.environ)
    assert ran.code == 3
    assert f"outdated: openssl {OLD} → {NEW}" in " ".join(ran.out.split())
    assert debian.repo.run("ci", "plan", "--exit-code", environ=debian.environ).code == 0
    debian.repo.spec("other", "simple:nowhere.img")
    debian.repo.disk("nowhere.img")
    debian.repo.commit("Add another")
    dry = ("ci", "rebuild", "--outdated", "--dry-run", "--format", "json")
    only = debian.repo.run(*dry, environ=debian.environ).json()
    assert {each["name"]: each["action"] for each in only["images"]} == {
        "base": "build",
        "nfs": "build",
        "plain": "build",
        "other": "keep",
    }


def latest(world, name):
    return json.loads(world.store.get(f"latest/{name}.x86_64.json").data)["revision"]["upstream"]


def records(world):
    return sorted(stat.key for stat in world.store.list("releases/") if outdated_key(stat.key))


def publish(world, *options, **environ):
    return world.repo.run("ci", "publish", *options, environ={**world.environ, **environ})


def test_a_publication_records_what_is_outdated_and_the_catalogue_shows_it(debian):
    debian.archive.publish(bookworm_security=[NEWER])
    assert publish(debian).code == 0
    assert records(debian) == []
    assert latest(debian, "base") is None
    ran = publish(debian, "--outdated")
    assert ran.code == 0, ran.err
    assert f"base (x86_64): revision 1 is outdated: openssl {OLD} → {NEW}" in ran.err
    assert records(debian) == ["releases/base/x86_64/outdated/1.1.json"]
    told = latest(debian, "base")
    assert told["packages"] == {
        "added": [],
        "removed": [],
        "upgraded": [f"openssl {OLD} {NEW}"],
        "omitted": 0,
    }
    assert (told["base"], told["since"]) == ("", told["found"])
    assert told["record"].endswith(records(debian)[0])
    assert [latest(debian, name) for name in ("nfs", "plain")] == [None, None]
    assert f"openssl {OLD} → {NEW}" in debian.store.get("catalogue/base.html").data.decode()
    assert "<option>outdated</option>" in debian.store.get("index.html").data.decode()
    shown = debian.repo.run("repo", "show", "base").out
    assert re.search(rf"^  outdated +since .*: openssl {OLD} → {NEW}$", shown, re.MULTILINE)
    page = debian.repo.run("repo", "show", "base", "--format", "json").json()
    assert page["revisions"][0]["recorded"]["packages"]["upgraded"] == told["packages"]["upgraded"]
    assert validator("latest").is_valid(
        json.loads(debian.store.get("latest/base.x86_64.json").data)
    )
    assert validator("outdated").is_valid(json.loads(debian.store.get(records(debian)[0]).data))
    verified = debian.repo.run("repo", "verify", "--format", "json").json()
    assert [each for each in verified["findings"] if "outdated" in each["where"]] == []
    assert verified["ok"], verified


def test_asking_again_writes_nothing_until_something_else_is_found(debian):
    debian.archive.publish(bookworm_security=[NEWER])
    publish(debian, "--outdated")
    before = {stat.key: stat.etag for stat in debian.store.list()}
    again = publish(debian, "--outdated")
    assert "rendered files that changed: nothing" in again.err
    assert {stat.key: stat.etag for stat in debian.store.list()} == before
    since = latest(debian, "base")["since"]
    newest = Stanza(name="openssl", version=f"{NEW}+b1")
    debian.archive.publish(bookworm_security=[newest])
    publish(debian, "--outdated")
    assert latest(debian, "base")["packages"]["upgraded"] == [f"openssl {OLD} {NEW}+b1"]
    assert latest(debian, "base")["since"] == since
    debian.archive.publish(bookworm_security=[])
    publish(debian, "--outdated")
    assert latest(debian, "base")["since"] is None
    assert "A build today" not in debian.store.get("catalogue/base.html").data.decode()
    assert len(records(debian)) == 3


def test_what_cannot_be_known_is_warned_of_and_keeps_nothing_from_being_published(debian):
    debian.archive.publish(bookworm_security=[NEWER])
    del debian.archive.server.content["/debian-security/dists/bookworm-security/InRelease"]
    ran = publish(debian, "--outdated")
    assert ran.code == 0, ran.err
    assert "whether base, nfs, plain would get other is not known: the archives of" in ran.err
    assert records(debian) == []
    assert debian.store.get("index.html")
    without_room = publish(debian, "--outdated", TMPDIR="/dev/null/nowhere")
    assert (without_room.code, records(debian)) == (0, [])
    assert "what is outdated is not recorded" in without_room.err


def test_only_what_is_built_of_the_specs_here_is_asked_for(debian):
    debian.archive.publish(bookworm_security=[NEWER])
    debian.repo.spec("base", "bootstrap:debian-12", f"#mirror={debian.archive.mirror}", "#notes=x")
    ran = debian.repo.run("repo", "refresh", "--outdated", environ=debian.environ)
    assert (ran.code, records(debian)) == (0, []), ran.err


def test_a_refresh_records_what_is_outdated_where_the_specs_are(debian, tmp_path):
    debian.archive.publish(bookworm_security=[NEWER])
    ran = debian.repo.run("repo", "refresh", "--outdated", environ=debian.environ)
    assert ran.code == 0, ran.err
    assert records(debian) == ["releases/base/x86_64/outdated/1.1.json"]
    assert latest(debian, "base")["packages"]["upgraded"] == [f"openssl {OLD} {NEW}"]
    again = debian.repo.run("repo", "refresh", "--format", "json")
    assert again.json()["written"] == []
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    at = ("--repository", str(debian.store.path))
    alone = debian.repo.run("repo", "refresh", "--outdated", *at, folder=nowhere)
    assert alone.code == 2, alone.err


def test_a_new_revision_takes_the_mark_away_and_gc_its_record_with_the_copy(debian):
    debian.archive.publish(bookworm_security=[NEWER])
    publish(debian, "--outdated")
    packages = {name: LAYER.replace(OLD, NEW) for name in ("base", "nfs", "plain")}
    made = debian.outdated()
    debian.now += DAY
    fill(debian.store, made, created=debian.now, packages=packages)
    publish(debian, "--outdated")
    assert latest(debian, "base") is None
    assert (
        "outdated"
        not in debian.store.get("catalogue/base.html").data.decode().partition("<body>")[2]
    )
    assert records(debian) == ["releases/base/x86_64/outdated/1.1.json"]
    yank = ("repo", "yank", "base", "--revision", "1", "--reason", "old", "--yes")
    assert debian.repo.run(*yank).code == 0
    for place in debian.store.path.rglob("*"):
        os.utime(place, (1, 1))
    swept = debian.repo.run("repo", "gc", "--apply")
    assert swept.code == 0, swept.err
    assert records(debian) == []
