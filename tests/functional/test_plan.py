"""Plans of real specs in real git repositories against a real directory repository."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lago_images.console import Console
from lago_images.errors import GitError, SpecError, UsageError
from lago_images.jobs.plan import plan, plan_and_state, refuse_dirty
from lago_images.jobs.workspace import Workspace
from lago_images.planning.git import Git
from lago_images.planning.history import Ask
from lago_images.planning.line import Line
from lago_images.planning.model import Plan
from lago_images.repository.records.layout import CACHE
from lago_images.settings import FILE, load
from lago_images.storage.base import Store
from lago_images.storage.directory.store import DirectoryStore
from lago_images.storage.overlay import OverlayStore
from tests.support.planning import actions, image, why
from tests.support.repository import fill
from tests.support.specs import SpecsRepo, git

DAY = 86_400


@dataclass
class World:
    """A specs repository, its published repository, and a clock that a test can move."""

    repo: SpecsRepo
    store: DirectoryStore
    now: int = 1_000 * DAY
    settings: dict = field(default_factory=dict)
    environ: dict = field(default_factory=dict)
    console: Console = field(default_factory=lambda: Console(quiet=True))

    def work(self, root: Path | None = None, store: Store | None = None) -> Workspace:
        root = root or self.repo.root
        return Workspace(
            root=root,
            settings=replace(load(root, {}), **self.settings),
            console=self.console,
            environ=self.environ,
            store=store or self.store,
            git=Git.find(root),
            cache=root / "cache",
            logs=root / "logs",
            clock=lambda: self.now,
        )

    def plan(self, root: Path | None = None, scope: str | None = None, **ask: Any) -> Plan:
        return plan(self.work(root), Ask(**ask), scope=scope)

    def publish(self, root: Path | None = None, **ask: Any) -> Plan:
        made = self.plan(root, **ask)
        self.now += 1
        fill(self.store, made, created=self.now)
        return made

    def clone(self, name: str, *options: str) -> Path:
        into = self.repo.root.parent / name
        git(self.repo.root, "clone", "-q", *options, self.repo.root.as_uri(), str(into))
        return into


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A base, two layers of which one uploads a folder, and an image of their own; published."""
    folder = tmp_path_factory.mktemp("world")
    repo = SpecsRepo.create(folder / "specs")
    repo.spec("debian", "bootstrap:debian-12")
    repo.spec("nfs", "layer:debian", "copy-in files/nfs:/etc")
    repo.spec("iscsi", "layer:debian", "upload files/target.conf:/etc/target.conf")
    repo.write("files/nfs/exports", "/srv\n")
    repo.write("files/target.conf", "a\n")
    repo.disk("files/disk.raw")
    repo.spec("small", "simple:files/disk.raw")
    repo.write("README.md", "1\n")
    repo.commit("Start")
    world = World(repo=repo, store=DirectoryStore(path=folder / "repo"))
    world.publish()
    return folder, world.now


@pytest.fixture
def world(made_once: tuple[Path, int], tmp_path: Path) -> World:
    folder, now = made_once
    shutil.copytree(folder, tmp_path / "world")
    repo = SpecsRepo(root=tmp_path / "world/specs")
    return World(repo=repo, store=DirectoryStore(path=tmp_path / "world/repo"), now=now)


def built(made: Plan) -> set[str]:
    return {name for name, action in actions(made).items() if action == "build"}


def test_an_unchanged_tree_or_a_changed_readme_builds_nothing(world):
    again = world.plan()
    assert set(actions(again).values()) == {"keep"}
    assert again.published == again.head == world.repo.head
    world.repo.write("README.md", "2\n")
    world.repo.commit()
    assert built(world.plan()) == set()


def test_a_stale_or_damaged_cache_changes_no_plan(world):
    cache = world.store.path / CACHE
    world.plan()
    older = cache.read_bytes()
    world.repo.write("files/target.conf", "b\n")
    world.repo.commit("Move the target")
    world.publish()
    world.repo.write("files/nfs/exports", "/home\n")
    world.repo.commit("Export more")
    lost = next(each for each in world.store.list("images/small/") if each.key.endswith(".xz"))
    (world.store.path / lost.key).write_bytes(b"cut")
    cache.unlink()
    made = world.plan()
    assert (built(made), image(made, "iscsi").revision) == ({"nfs", "small"}, 2)
    newer = cache.read_bytes()
    wrong = newer.replace(image(made, "iscsi").fingerprint.encode(), b"0" * 64)
    assert wrong != newer
    for data in (older, b"", newer[: len(newer) // 2], newer[:-9] + newer[-1:], wrong, newer):
        cache.write_bytes(data)
        assert world.plan() == made
        assert plan_and_state(world.work(), Ask())[0] == made


@dataclass(frozen=True)
class Linked:
    """An image of which something is read through ``links``, and at last from ``target``.

    ``moved`` is what the first link stands for, if that is not the target but its folder;
    ``line`` is for a spec that reads the target where nothing was before.
    """

    image: str
    links: dict[str, str]
    target: str
    moved: str = ""
    kind: str = "input"
    line: str = ""


LINKED = {
    "file": Linked("small", {"files/disk.raw": "../shared/disk.raw"}, "shared/disk.raw"),
    "spec": Linked("small", {"image-specs/small": "../variants/x"}, "variants/x", kind="spec"),
    "folder": Linked("nfs", {"files/nfs": "../shared/nfs"}, "shared/nfs/exports", "shared/nfs"),
    "folder on the way": Linked(
        "iscsi",
        {"files/way": "../shared/way/", "shared/way": "../more"},
        "more/target.conf",
        line="upload files/way/target.conf:/etc/target.conf",
    ),
    "chain": Linked(
        "small",
        {"files/disk.raw": "../one/./link", "one/link": "../two/link", "two/link": "../x/disk"},
        "x/disk",
    ),
    "there and back": Linked(
        "small", {"files/disk.raw": "../../specs/shared/disk.raw"}, "shared/disk.raw"
    ),
}


def put_behind_links(world: World, linked: Linked) -> None:
    """Move what is read behind links, and publish that."""
    root = world.repo.root
    if linked.line:
        world.repo.spec(linked.image, "layer:debian", linked.line)
        world.repo.write(linked.target, "a\n")
    else:
        moved = root / (linked.moved or linked.target)
        moved.parent.mkdir(parents=True)
        (root / next(iter(linked.links))).rename(moved)
    for link, target in linked.links.items():
        (root / link).parent.mkdir(exist_ok=True)
        (root / link).symlink_to(target)
    world.repo.commit("Link")
    world.publish(force=frozenset({linked.image}))


@pytest.fixture(params=LINKED)
def linked(request: pytest.FixtureRequest, world: World) -> Linked:
    put_behind_links(world, LINKED[request.param])
    return LINKED[request.param]


def append(world: World, path: str | Path) -> None:
    with (world.repo.root / path).open("a") as file:
        file.write("run-command true\n")


def test_files_committed_behind_links_are_clean_and_published(world, linked):
    made = world.plan()
    assert (made.dirty, made.published) == (False, world.repo.head)
    assert set(actions(made).values()) == {"keep"}


def test_a_change_behind_links_is_built_in_the_pull_request_and_promoted(world, linked):
    git(world.repo.root, "checkout", "-q", "-b", "feature")
    append(world, linked.target)
    commit = world.repo.commit("Behind it")[:7]
    made = world.plan(scope="main")
    assert built(made) == {linked.image}
    [(kind, reason)] = why(made, linked.image)
    assert kind == linked.kind
    assert reason.startswith(linked.target)
    assert reason.endswith(f'changed in {commit} "Behind it"')
    fill(world.store, made, created=world.now + 1, released=False)
    git(world.repo.root, "checkout", "-q", "main")
    git(world.repo.root, "merge", "-q", "--no-ff", "-m", "Merge", "feature")
    clone = world.clone("merged/specs", "--depth=1")
    assert actions(world.plan())[linked.image] == "promote"
    assert actions(world.plan(clone))[linked.image] == "promote"


def test_an_uncommitted_file_behind_links_is_dirty(world, linked):
    append(world, linked.target)
    made = world.plan()
    assert made.dirty
    [(kind, reason)] = why(made, linked.image)
    assert kind == linked.kind
    assert reason.startswith(f"{linked.target}, which image-specs/{linked.image} ")
    assert reason.endswith("differs from what is committed")


def test_a_change_of_any_link_on_the_way_rebuilds(world, linked):
    root = world.repo.root
    for link in map(root.joinpath, linked.links):
        git(root, "checkout", "-q", "-B", "feature", "main")
        real = link.resolve()
        other = real.with_name(f"other-{real.name}")
        (shutil.copytree if real.is_dir() else shutil.copy)(real, other)
        append(world, other / Path(linked.target).name if real.is_dir() else other)
        start = world.repo.commit("Another")
        link.unlink()
        link.symlink_to(os.path.relpath(other, link.parent))
        path = str(link.relative_to(root))
        uncommitted = world.plan()
        commit = world.repo.commit("Turn")[:7]
        committed = world.plan(scope=start)
        assert (uncommitted.dirty, committed.dirty) == (True, False)
        assert built(uncommitted) == built(committed) == {linked.image}
        for made, behind in (uncommitted, "differs from"), (committed, f"changed in {commit}"):
            told = [reason for _, reason in why(made, linked.image)]
            assert any(reason.startswith(path) and behind in reason for reason in told)


def test_a_folder_of_specs_behind_a_link_is_planned(world):
    root = world.repo.root
    (root / "image-specs").rename(root / "variants")
    (root / "image-specs").symlink_to("variants")
    world.repo.commit("Link")
    everything = frozenset(actions(world.plan()))
    world.publish(force=everything)
    assert not world.plan().dirty
    (root / "variants/small").unlink()
    made = world.plan()
    assert made.dirty
    assert image(made, "small").note.startswith("variants/small is removed, not committed")
    append(world, "variants/nfs")
    world.repo.spec("more", "bootstrap:debian-13", "update", *["run-command true"] * 20)
    commit = world.repo.commit("Do")[:7]
    made = world.plan(scope="HEAD~1")
    assert built(made) == {"more", "nfs"}
    assert why(made, "more") == [("new", f'variants/more was added in {commit} "Do"')]
    assert why(made, "nfs")[0][1].startswith("variants/nfs, which image-specs/nfs is read from, ch")


def test_a_spec_and_a_file_behind_links_into_a_submodule_are_planned(world, tmp_path):
    other = SpecsRepo.create(tmp_path / "other")
    spec = other.spec("one", "simple:files/one.raw")
    other.disk("one.raw")
    other.commit()
    git(world.repo.root, "submodule", "add", "-q", other.root.as_uri(), "vendor")
    (world.repo.root / "image-specs/one").symlink_to("../vendor/image-specs/one")
    (world.repo.root / "files/one.raw").symlink_to("../vendor/one.raw")
    world.repo.commit("Add vendor")
    world.publish()
    made = world.plan()
    assert (made.dirty, made.published) == (False, world.repo.head)
    spec.write_text(spec.read_text() + "update\n")
    other.disk("one.raw", seed=2)
    other.commit()
    git(world.repo.root / "vendor", "pull", "-q")
    assert world.plan().dirty
    world.repo.commit("Move vendor")
    made = world.plan(scope="HEAD~1")
    assert (made.dirty, built(made)) == (False, {"one"})
    assert {kind for kind, _ in why(made, "one")} == {"spec", "input"}


def test_an_ignored_link_is_dirty(world):
    world.repo.write(".gitignore", "mine\n")
    (world.repo.root / "files/mine").symlink_to("disk.raw")
    world.repo.spec("small", "simple:files/mine")
    world.repo.commit("Ignore")
    made = world.plan()
    assert made.dirty
    assert (
        "input",
        "files/mine, which image-specs/small reads, differs from what is committed",
    ) in (why(made, "small"))


@pytest.mark.parametrize(
    ("path", "affected", "kind"),
    [
        ("image-specs/nfs", {"nfs"}, "spec"),
        ("image-specs/debian", {"debian", "nfs", "iscsi"}, "spec"),
        ("files/nfs/exports", {"nfs"}, "input"),
        ("files/nfs/deep/more", {"nfs"}, "input"),
        ("files/target.conf", {"iscsi"}, "input"),
        ("files/disk.raw", {"small"}, "input"),
    ],
)
def test_exactly_what_a_change_affects_is_built(world, path, affected, kind):
    target = world.repo.root / path
    target.parent.mkdir(exist_ok=True)
    with target.open("a") as file:
        file.write("run-command true\n")
    before = world.plan()
    commit = world.repo.commit('Say "more"')
    after = world.plan()
    assert (before.dirty, after.dirty) == (True, False)
    for made, behind in (
        (before, "differs from what is committed"),
        (after, f'in {commit[:7]} "Say "more""'),
    ):
        assert built(made) == affected
        found = [reason for name in affected for reason in why(made, name)]
        assert any(one == kind and path in what and behind in what for one, what in found)


def test_changed_comments_and_times_build_nothing(world):
    spec = world.repo.root / "image-specs/nfs"
    spec.write_text("# more\n\n" + spec.read_text())
    world.repo.commit()
    assert built(world.plan()) == set()


def test_a_layer_whose_base_is_kept_is_a_chain_of_its_own(world):
    for name in ("nfs", "iscsi"):
        with (world.repo.root / f"image-specs/{name}").open("a") as file:
            file.write("update\n")
    world.repo.commit()
    assert world.plan().chains == (("iscsi",), ("nfs",))


def test_renamed_and_removed_specs_are_retired(world):
    git(world.repo.root, "mv", "image-specs/nfs", "image-specs/nfs-server")
    (world.repo.root / "image-specs/small").unlink()
    commit = world.repo.commit("Tidy")[:7]
    made = world.plan()
    assert actions(made) == {
        "debian": "keep",
        "iscsi": "keep",
        "nfs": "retire",
        "nfs-server": "build",
        "small": "retire",
    }
    renamed = f'image-specs/nfs-server was renamed from image-specs/nfs in {commit} "Tidy"'
    assert ("new", renamed) in why(made, "nfs-server")
    for _ in range(2):
        assert image(made, "small").note == (
            f'image-specs/small was removed in {commit} "Tidy"; what is published stays'
        )
        assert image(made, "nfs").note == (
            f'image-specs/nfs was renamed to image-specs/nfs-server in {commit} "Tidy"; '
            "what is published stays"
        )
        world.publish()
        made = world.plan()
    assert built(made) == set()


def test_an_uncommitted_removal_of_a_spec_is_planned(world):
    (world.repo.root / "image-specs/small").unlink()
    assert image(world.plan(), "small").note == (
        "image-specs/small is removed, not committed; what is published stays"
    )


def test_a_shallow_clone_plans_like_a_full_one(world):
    with (world.repo.root / "image-specs/nfs").open("a") as file:
        file.write("update\n")
    commit = world.repo.commit("Update nfs")[:7]
    for number in range(60):
        world.repo.write("README.md", f"{number}\n")
        world.repo.commit()
    whole, shallow = world.plan(), world.plan(world.clone("shallow", "--depth=1"))
    assert shallow.images == whole.images
    assert why(shallow, "nfs") == [("spec", f'image-specs/nfs changed in {commit} "Update nfs"')]


def test_changes_are_planned_after_a_force_push_removed_the_published_commit(world):
    start = world.repo.head
    world.repo.spec("lost", "layer:debian")
    world.repo.commit("Lost")
    world.publish()
    git(world.repo.root, "reset", "-q", "--hard", start)
    with (world.repo.root / "image-specs/nfs").open("a") as file:
        file.write("update\n")
    world.repo.commit("Instead")
    git(world.repo.root, "reflog", "expire", "--expire=now", "--all")
    git(world.repo.root, "gc", "-q", "--prune=now")
    made = world.plan(world.clone("clone"))
    assert actions(made)["lost"] == "retire"
    assert built(made) == {"nfs"}
    ((kind, detail),) = why(made, "nfs")
    assert (kind, "Instead" in detail) == ("spec", True)


def test_an_older_checkout_leaves_newer_images_alone(world):
    old = world.clone("old")
    world.repo.spec("later", "layer:debian")
    with (world.repo.root / "image-specs/debian").open("a") as file:
        file.write("update\n")
    world.repo.commit("Newer")
    world.publish()
    made = world.plan(old)
    assert set(actions(made).values()) == {"keep"}
    assert "is newer than this checkout" in image(made, "debian").note
    assert "is newer than this checkout" in image(made, "later").note
    assert built(world.plan(old, everything=True)) == {"small"}


@pytest.fixture
def taken_back(world: World) -> tuple[World, str]:
    """A commit that was published, and that a force-push then took back: and what was before."""
    git(world.repo.root, "config", "uploadpack.allowAnySHA1InWant", "true")
    start = world.repo.head
    with (world.repo.root / "image-specs/nfs").open("a") as file:
        file.write("run-command evil\n")
    world.repo.commit("To be taken back")
    world.publish()
    git(world.repo.root, "reset", "-q", "--hard", start)
    return world, start


CLONES = {"whole": (), "shallow": ("--depth=1",), "single": ("--single-branch", "-b", "main")}


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("options", CLONES.values(), ids=CLONES)
def test_a_commit_removed_by_a_force_push_is_not_newer_and_its_images_are_rebuilt(
    taken_back, options, detached
):
    world, _ = taken_back
    here = world.clone("clone", *options)
    if detached:
        git(here, "checkout", "-q", "--detach")
    assert built(world.plan(here)) == {"nfs"}


def test_a_clone_older_than_the_force_push_asks_the_remote(world):
    git(world.repo.root, "config", "uploadpack.allowAnySHA1InWant", "true")
    start = world.repo.head
    with (world.repo.root / "image-specs/nfs").open("a") as file:
        file.write("run-command evil\n")
    world.repo.commit("To be taken back")
    world.publish()
    here = world.clone("clone")
    git(here, "checkout", "-q", "--detach", start)
    assert built(world.plan(here)) == set(), "it is newer as yet"
    git(world.repo.root, "reset", "-q", "--hard", start)
    assert git(here, "rev-parse", "origin/main") != start
    assert built(world.plan(here)) == {"nfs"}


def test_a_commit_on_another_branch_than_the_published_one_is_not_newer(taken_back):
    world, _ = taken_back
    published = world.plan().published
    git(world.repo.root, "branch", "attempt", published)
    here = world.clone("clone")
    assert built(world.plan(here)) == {"nfs"}
    for environ in (
        {"GITHUB_REF": "refs/heads/attempt"},
        {"GITHUB_REF": "refs/pull/1/merge", "GITHUB_BASE_REF": "attempt"},
        {"JENKINS_URL": "x", "BRANCH_NAME": "attempt"},
        {"JENKINS_URL": "x", "BRANCH_NAME": "PR-1", "CHANGE_TARGET": "attempt"},
    ):
        world.environ = environ
        assert built(world.plan(here)) == set()
        assert "newer than this checkout" in image(world.plan(here), "nfs").note
    world.settings = {"branch": "main"}
    assert built(world.plan(here)) == {"nfs"}
    world.settings = {"branch": "attempt"}
    assert built(world.plan(here)) == set()


def test_a_branch_that_exists_nowhere_takes_no_commit_back(taken_back):
    """With a typo in the setting, an older checkout would else build over newer images."""
    world, _ = taken_back
    here = world.clone("clone")
    world.settings = {"branch": "mian"}
    for at, where in ((here, "the remote 'origin'"), (world.repo.root, "this clone")):
        with pytest.raises(UsageError, match=f"{where} has no branch 'mian'"):
            world.plan(at)
    world.settings, world.environ = {}, {"GITHUB_REF": "refs/heads/deleted"}
    with pytest.raises(UsageError, match="no branch 'deleted'"):
        world.plan(here)


def test_an_unreachable_remote_stops_the_plan(taken_back, tmp_path):
    """A CI's clone may have no credentials left: what it fetched a moment ago counts then."""
    world, _ = taken_back
    published = world.plan().published
    git(world.repo.root, "branch", "attempt", published)
    here = world.clone("clone")
    git(here, "remote", "set-url", "origin", (tmp_path / "nowhere").as_uri())
    world.settings = {"branch": "attempt"}
    assert built(world.plan(here)) == set()
    world.settings = {"branch": "main"}
    with pytest.raises(GitError, match=f"whether commit {published[:7]} is still on main is not"):
        world.plan(here)


def test_ancestry_comes_from_local_branches_without_a_remote(taken_back):
    world, _ = taken_back
    published = world.plan().published
    assert built(world.plan()) == {"nfs"}
    git(world.repo.root, "branch", "later", published)
    assert built(world.plan()) == set()
    world.settings = {"branch": "main"}
    assert built(world.plan()) == {"nfs"}


def test_plan_and_publisher_agree_on_which_commit_is_newer(taken_back):
    world, start = taken_back
    published = world.plan().published
    here = world.clone("clone", "--depth=1")
    with Git(here) as found:
        line = Line(git=found)
        assert found.is_ancestor(start, published) is True
        assert line.is_older(start, published) is False
        assert line.is_older(published, start) is False
        assert line.is_older(start, start) is True
        assert line.is_older("f" * 40, start) is None


def test_an_unknown_published_commit_compares_all_fingerprints(world, tmp_path):
    copy = world.clone("copy")
    shutil.rmtree(copy / ".git")
    other = SpecsRepo.create(copy)
    other.commit("Another history")
    assert built(world.plan(copy)) == set()
    with (copy / "image-specs/nfs").open("a") as file:
        file.write("update\n")
    made = world.plan(copy)
    assert built(made) == {"nfs"}


def test_outside_git_fingerprints_give_the_same_plan(world, tmp_path):
    copy = tmp_path / "exported"
    shutil.copytree(world.repo.root, copy, ignore=shutil.ignore_patterns(".git"))
    made = world.plan(copy)
    assert (made.head, made.dirty, built(made)) == (None, False, set())
    (copy / "files/nfs/exports").write_text("other\n")
    assert built(world.plan(copy)) == {"nfs"}


def test_specs_below_the_git_root_are_planned(world):
    below = world.repo.root / "below"
    shutil.copytree(world.repo.root / "image-specs", below / "image-specs")
    shutil.copytree(world.repo.root / "files", below / "files")
    world.repo.commit("Below")
    assert built(world.plan(below)) == set()
    (below / "files/nfs/exports").write_text("other\n")
    commit = world.repo.commit("Below again")[:7]
    reasons = dict(why(world.plan(below), "nfs"))
    assert f'{commit} "Below again"' in reasons["input"]


def test_a_submodules_files_are_inputs(world, tmp_path):
    other = SpecsRepo.create(tmp_path / "other")
    other.write("motd", "1\n")
    other.commit()
    git(world.repo.root, "submodule", "add", "-q", other.root.as_uri(), "vendor")
    world.repo.spec("small", "simple:files/disk.raw", "upload vendor/motd:/etc/motd")
    world.repo.commit("Add vendor")
    world.publish()
    assert built(world.plan()) == set()
    (world.repo.root / "vendor/motd").write_text("2\n")
    assert why(world.plan(), "small")[0][0] == "input"
    git(world.repo.root / "vendor", "commit", "-qam", "Two")
    commit = world.repo.commit("Move vendor")[:7]
    detail = f"vendor (with vendor/motd), which image-specs/small reads, changed in {commit}"
    assert why(world.plan(), "small")[0][1].startswith(detail)
    world.publish()
    assert built(world.plan()) == set()


def pull_request(world: World) -> str:
    git(world.repo.root, "checkout", "-q", "-b", "feature")
    with (world.repo.root / "image-specs/nfs").open("a") as file:
        file.write("update\n")
    return world.repo.commit("Update nfs")


def test_a_pull_requests_build_is_promoted_after_the_merge(world):
    pull_request(world)
    made = world.plan(scope="main")
    assert built(made) == {"nfs"}
    fill(world.store, made, created=world.now + 1, released=False)
    git(world.repo.root, "checkout", "-q", "main")
    git(world.repo.root, "merge", "-q", "--no-ff", "-m", "Merge", "feature")
    git(world.repo.root, "branch", "-D", "feature")
    merged = world.plan(world.clone("merged", "--depth=1"))
    assert actions(merged)["nfs"] == "promote"
    assert image(merged, "nfs").promote == f"b{world.now + 1}"
    assert merged.chains == ()
    world.settings = {"promote": "never"}
    assert actions(world.plan())["nfs"] == "build"
    world.settings = {}
    world.publish()
    assert set(actions(world.plan()).values()) == {"keep"}


def test_a_pull_request_does_not_build_what_main_still_has_to_build(world):
    (world.repo.root / "files/disk.raw").write_bytes(b"x" * 512)
    world.repo.commit("Pending")
    pull_request(world)
    shallow = world.clone("shallow", "--depth=1", "-b", "feature", "--no-single-branch")
    made = world.plan(shallow, scope="origin/main")
    assert built(made) == {"nfs"}
    assert image(made, "small").note.startswith("not asked for here: files/disk.raw, which")
    assert built(world.plan()) == {"nfs", "small"}


def test_a_base_on_a_deleted_branch_is_a_usage_error(world):
    with pytest.raises(UsageError, match="no commit 'origin/gone' in this clone"):
        world.plan(scope="origin/gone")


def test_stale_images_are_rebuilt_with_their_layers(world):
    world.now += 30 * DAY
    assert built(world.plan(stale_days=30)) == {"debian", "nfs", "iscsi", "small"}
    world.publish(force=frozenset({"small"}), changed=False)
    world.now += 1
    assert built(world.plan(stale_days=30)) == {"debian", "nfs", "iscsi"}


def test_layers_that_missed_the_rebuild_of_their_base_are_rebuilt(world):
    made = world.plan(force=frozenset({"debian"}))
    assert built(made) == {"debian", "nfs", "iscsi"}
    only = [one for one in made.images if one.name == "debian"]
    half = replace(made, images=tuple(only), chains=(("debian",),))
    fill(world.store, half, created=world.now + 5)
    later = world.plan()
    assert built(later) == {"nfs", "iscsi"}
    assert why(later, "nfs") == [("base", "its base debian was released since as another build")]


@pytest.mark.parametrize("written", ["./image-specs", "image-specs/", ".//image-specs/."])
def test_any_spelling_of_the_folder_of_specs_leaves_a_checkout_clean(world, written):
    world.repo.write(FILE, f'specs = "{written}"\n')
    commit = world.repo.commit()
    at = ("ci", "plan", "--repository", str(world.store.path), "--format", "json")
    plain = world.repo.run(*at).json()
    assert (plain["head"], plain["dirty"]) == (commit, False)
    assert {one["action"] for one in plain["images"]} == {"keep"}
    with (world.repo.root / "image-specs/nfs").open("a") as file:
        file.write("update\n")
    assert world.repo.run(*at).json()["dirty"] is True


def test_the_command_line_prints_the_plan_in_every_form(world):
    with (world.repo.root / "image-specs/nfs").open("a") as file:
        file.write("update\n")
    commit = world.repo.commit("Update nfs")
    at = ("ci", "plan", "--repository", str(world.store.path))
    text = world.repo.run(*at)
    assert (text.code, text.err) == (0, "")
    assert f"nfs     x86_64  build   spec: image-specs/nfs changed in {commit[:7]}" in text.out
    assert text.out.endswith("1 to build in 1 chain, 0 to promote, 3 kept, 0 retired\n")
    plain = world.repo.run(*at, "--format", "json").json()
    assert (plain["schema"], plain["head"], plain["chains"]) == (1, commit, [["nfs"]])
    assert plain["published"] == git(world.repo.root, "rev-parse", "HEAD^")
    jenkins = world.repo.run(*at, "--format", "jenkins")
    assert json.loads(jenkins.out) == [{"chain": "nfs", "batch": "1/1", "arch": "x86_64"}]
    assert world.repo.run(*at, "debain").code == 2


KEYED = """[[template-sources]]
url = "http://templates.example.org/index.asc"
fingerprint = "F"
key = "keys/templates.asc"
"""


def test_the_key_of_a_template_source_is_an_input(world):
    world.repo.write(FILE, KEYED)
    world.repo.spec("fedora", "libguestfs:fedora-42")
    with pytest.raises(SpecError, match=f"{FILE}: cannot read keys/templates.asc: No such file"):
        world.plan()
    key = world.repo.write("keys/templates.asc", "one\n")
    world.repo.commit("Trust a key")
    world.publish()
    assert built(world.plan()) == set()
    key.write_text("another\n")
    assert world.plan().dirty
    commit = world.repo.commit("Trust another")[:7]
    made = world.plan(scope="HEAD~1")
    assert (built(made), made.dirty) == ({"fedora"}, False)
    detail = (
        f'keys/templates.asc, which image-specs/fedora reads, changed in {commit} "Trust another"'
    )
    assert why(made, "fedora") == [("input", detail)]


def test_uncommitted_template_sources_are_dirty(world):
    world.repo.write(FILE, KEYED.replace('key = "keys/templates.asc"\n', ""))
    world.repo.spec("fedora", "libguestfs:fedora-42")
    world.repo.commit()
    assert not world.plan().dirty
    world.repo.write(FILE, KEYED.replace('key = "keys/templates.asc"\n', "").replace("F", "G"))
    assert world.plan().dirty


def test_changed_git_attributes_rebuild_the_affected_images(world):
    """In git nothing changes but the attributes; the disk would."""
    world.repo.write(".gitattributes", "files/target.conf text eol=crlf\n")
    world.repo.commit("Other line ends")
    here = world.clone("clone")
    assert (here / "files/target.conf").read_bytes() == b"a\r\n"
    made = world.plan(here)
    assert (built(made), made.dirty) == ({"iscsi"}, False)
    assert built(world.plan(world.clone("shallow", "--depth=1"))) == {"iscsi"}


def test_a_file_locked_by_git_crypt_is_refused_before_planning(world):
    world.repo.write("files/target.conf", b"\0GITCRYPT\0" + bytes(12) + b"secret")
    world.repo.commit("Encrypt")
    with pytest.raises(SpecError) as caught:
        world.plan()
    assert caught.value.message == (
        "image-specs/iscsi: cannot read files/target.conf: "
        "files/target.conf is locked by git-crypt (git-crypt unlock)"
    )


def test_a_plan_for_a_directory_imports_neither_s3_nor_github(world):
    code = (
        "import runpy, sys\n"
        "try: runpy.run_module('lago_images', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'boto3', 'botocore', 's3transfer', 'github'}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "ci", "plan", "--repository", str(world.store.path)],
        cwd=world.repo.root,
        env=world.repo.env(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("0 to build in 0 chains, 0 to promote, 4 kept, 0 retired\n")
    assert done.stderr == "[]\n"


@pytest.fixture
def elsewhere(world: World, tmp_path: Path) -> Store:
    """A store that is no folder of this machine, as a bucket is."""
    return OverlayStore(upper=DirectoryStore(path=tmp_path / "upper"), lower=world.store)


def test_uncommitted_changes_are_refused_for_a_bucket_and_warned_of_for_a_directory(
    world, elsewhere, capsys
):
    world.console = Console()
    idle, clean = world.plan(), world.plan(everything=True)
    refuse_dirty(world.work(store=elsewhere), clean, allow=False)
    refuse_dirty(world.work(), clean, allow=False)
    assert capsys.readouterr().err == ""
    for path in ("image-specs/nfs", "files/target.conf", "image-specs/debian", "image-specs/iscsi"):
        append(world, path)
    head = world.repo.head[:7]
    dirty = world.plan()
    what = (
        "files/target.conf, image-specs/debian, image-specs/iscsi and 1 more differ from "
        f"commit {head}"
    )
    # The plan may have been made elsewhere, of a clean checkout: or the other way round.
    for made in (dirty, clean):
        with pytest.raises(UsageError, match=f"^{what}: nobody could say what"):
            refuse_dirty(world.work(store=elsewhere), made, allow=False)
        assert capsys.readouterr().err == ""
        refuse_dirty(world.work(store=elsewhere), made, allow=True)
        refuse_dirty(world.work(), made, allow=False)
        assert capsys.readouterr().err.count(f"NOT COMMITTED: {what}") == 2
    # Nothing is published of them.
    small = world.plan(changed=False, force=frozenset({"small"}))
    for made in (idle, small):
        refuse_dirty(world.work(store=elsewhere), made, allow=False)
        assert capsys.readouterr().err == ""
    git(world.repo.root, "reset", "-q", "--hard")
    with pytest.raises(UsageError, match="what the plan was made from differs from commit"):
        refuse_dirty(world.work(store=elsewhere), dirty, allow=False)
