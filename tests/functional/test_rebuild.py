"""``ci rebuild`` and its steps as they are called: from specs in git to a directory repository."""

import json
import lzma
import re
from pathlib import Path

import pytest

from tests.servers.proxy import FaultProxy
from tests.support.specs import SpecsRepo, git
from tests.tools import need

need("qemu-img", "git")


@pytest.fixture
def repo(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.disk("image-specs/files/one.img", seed=1)
    repo.disk("image-specs/files/two.img", seed=2)
    repo.spec("one", "simple:image-specs/files/one.img")
    repo.spec("one-layer", "layer:one")
    repo.spec("two", "simple:image-specs/files/two.img")
    repo.write("README.md", "hello\n")
    repo.commit("Add the specs")
    return repo


def actions(repo, *args):
    ran = repo.run("ci", "plan", "--format", "json", *args)
    assert ran.code == 0, ran.err
    return {image["name"]: image["action"] for image in ran.json()["images"]}


def reasons(repo, name):
    plan = repo.run("ci", "plan", "--format", "json").json()
    return next(i["reasons"] for i in plan["images"] if i["name"] == name)


def revisions(repo):
    ran = repo.run("repo", "list", "--format", "json")
    assert ran.code == 0, ran.err
    return {image["name"]: image["revision"] for image in ran.json()["images"]}


def rebuild(repo, *args):
    ran = repo.run("ci", "rebuild", *(args or ("--changed",)))
    assert ran.code == 0, ran.err
    return ran


def test_an_empty_repository_gets_every_image_and_a_second_run_builds_none(repo):
    rebuild(repo)
    assert revisions(repo) == {"one": 1, "one-layer": 1, "two": 1}
    published = json.loads((repo.root / "image-repo/state/published.json").read_text())
    assert published["commit"] == repo.head
    before = {path: path.stat().st_mtime_ns for path in (repo.root / "image-repo").rglob("*.json")}
    again = rebuild(repo)
    assert "nothing" in (again.out + again.err)
    assert revisions(repo) == {"one": 1, "one-layer": 1, "two": 1}
    assert before == {
        path: path.stat().st_mtime_ns for path in (repo.root / "image-repo").rglob("*.json")
    }


def test_a_page_links_the_commit_in_the_repository_that_was_cloned(repo, tmp_path):
    git(repo.root, "clone", "-q", "--bare", str(repo.root), str(tmp_path / "host/o/specs.git"))
    host = "https://user:secret@gitlab.example.org"
    git(repo.root, "config", f"url.{(tmp_path / 'host').as_uri()}.insteadOf", host)
    git(repo.root, "remote", "add", "origin", f"{host}/o/specs.git")
    git(repo.root, "fetch", "-q")
    rebuild(repo)
    record = (repo.root / "image-repo/releases/one/x86_64/1.json").read_text()
    cloned = json.loads(record)["released"]["repository"]
    assert cloned == "https://gitlab.example.org/o/specs.git"
    page = (repo.root / "image-repo/catalogue/one.html").read_text()
    assert f'href="https://gitlab.example.org/o/specs/-/commit/{repo.head}"' in page
    assert "secret" not in record + page


def test_the_published_disk_has_the_bytes_of_the_base(repo):
    rebuild(repo)
    metadata = json.loads((repo.root / "image-repo/repo.metadata").read_text())
    version = next(iter(metadata["templates"]["one"]["versions"].values()))
    packed = (repo.root / "image-repo" / (version["handle"] + ".xz")).read_bytes()
    raw = repo.root / "raw.img"
    (repo.root / "disk.qcow2").write_bytes(lzma.decompress(packed))
    import subprocess

    subprocess.run(["qemu-img", "convert", "-O", "raw", repo.root / "disk.qcow2", raw], check=True)
    assert raw.read_bytes() == (repo.root / "image-specs/files/one.img").read_bytes()


def test_a_changed_base_rebuilds_its_layers_and_nothing_else(repo):
    rebuild(repo)
    repo.spec("one", "simple:image-specs/files/one.img", "#notes=new")
    commit = repo.commit("Change one")
    assert actions(repo) == {"one": "build", "one-layer": "build", "two": "keep"}
    [reason] = reasons(repo, "one")
    assert reason["kind"] == "spec"
    assert "image-specs/one" in reason["detail"]
    assert commit[:7] in reason["detail"]
    assert [r["kind"] for r in reasons(repo, "one-layer")] == ["base"]
    rebuild(repo)
    assert revisions(repo) == {"one": 2, "one-layer": 2, "two": 1}


def test_a_changed_input_rebuilds_the_images_that_read_it(repo):
    rebuild(repo)
    repo.disk("image-specs/files/two.img", seed=3)
    repo.commit("New disk for two")
    assert actions(repo) == {"one": "keep", "one-layer": "keep", "two": "build"}
    [reason] = reasons(repo, "two")
    assert reason["kind"] == "input"
    assert "image-specs/files/two.img" in reason["detail"]


def test_a_changed_readme_rebuilds_nothing(repo):
    rebuild(repo)
    repo.write("README.md", "changed\n")
    repo.commit("Say more")
    assert set(actions(repo).values()) == {"keep"}


def test_a_removed_spec_leaves_its_published_files(repo):
    rebuild(repo)
    (repo.root / "image-specs/two").unlink()
    repo.commit("Drop two")
    assert actions(repo)["two"] == "retire"
    rebuild(repo)
    assert "[two]" in (repo.root / "image-repo/index").read_text()


def test_an_image_whose_architecture_changes_is_built_with_its_layers(repo):
    """The plan then has two entries of its name; what is published stays."""
    rebuild(repo)
    for name in ("one", "one-layer"):
        path = repo.root / "image-specs" / name
        path.write_text(path.read_text().replace("#arch=x86_64", "#arch=aarch64"))
    repo.commit("Move one to another architecture")
    plan = repo.run("ci", "plan", "--format", "json").out
    assert [(i["name"], i["arch"], i["action"]) for i in json.loads(plan)["images"]] == [
        ("one", "aarch64", "build"),
        ("one", "x86_64", "retire"),
        ("one-layer", "aarch64", "build"),
        ("one-layer", "x86_64", "retire"),
        ("two", "x86_64", "keep"),
    ]
    saved = repo.root.parent / "plan.json"
    saved.write_text(plan)
    results = str(repo.root.parent / "results")
    ran = repo.run("ci", "build", "--plan", str(saved), "--batch", "1/1", "--results", results)
    assert (ran.code, ran.out.count(": built in ")) == (0, 2), ran.err
    ran = repo.run("ci", "publish", "--plan", str(saved), "--results", results)
    assert ran.code == 0, ran.err
    assert (repo.root / "image-repo/releases/one-layer/aarch64/1.json").is_file()
    assert (repo.root / "image-repo/index").read_text().count("[one]") == 2
    rebuild(repo, "one")
    assert (repo.root / "image-repo/releases/one-layer/aarch64/2.json").is_file()


def test_a_dry_run_writes_nothing(repo):
    ran = rebuild(repo, "--changed", "--dry-run")
    assert "one-layer" in ran.out
    assert not (repo.root / "image-repo").exists()
    plain = repo.run("ci", "rebuild", "--changed", "--dry-run", "--format", "json").json()
    assert plain["chains"] == [["one", "one-layer"], ["two"]]
    wrong = repo.run("ci", "rebuild", "--changed", "--format", "github")
    assert (wrong.code, wrong.out) == (2, "")


def test_one_failure_stays_one_failure(repo):
    repo.write("image-specs/files/one.img", b"\x1f\x8b\x08 this is no gzip file")
    repo.commit("Break one")
    ran = repo.run("ci", "rebuild", "--changed")
    assert ran.code == 1
    assert "one-layer" in ran.err
    assert revisions(repo) == {"two": 1}
    repo.disk("image-specs/files/one.img", seed=5)
    repo.commit("Mend one")
    rebuild(repo)
    assert revisions(repo) == {"one": 1, "one-layer": 1, "two": 1}


def test_named_images_are_rebuilt_with_their_layers(repo):
    rebuild(repo)
    rebuild(repo, "one")
    assert revisions(repo) == {"one": 2, "one-layer": 2, "two": 1}
    unknown = repo.run("ci", "rebuild", "onne")
    assert unknown.code == 2
    assert "one" in unknown.err


def test_plan_build_and_publish_work_as_three_commands(repo):
    plan = repo.run("ci", "plan", "--format", "json")
    (repo.root.parent / "plan.json").write_text(plan.out)
    saved = str(repo.root.parent / "plan.json")
    results = str(repo.root.parent / "results")
    for chain in plan.json()["chains"]:
        ran = repo.run("ci", "build", "--plan", saved, "--results", results, *chain)
        assert ran.code == 0, ran.err
    assert not (repo.root / "image-repo/index").exists()
    ran = repo.run("ci", "publish", "--plan", saved, "--results", results)
    assert ran.code == 0, ran.err
    assert revisions(repo) == {"one": 1, "one-layer": 1, "two": 1}


def saved_plan(repo, tmp_path):
    """A plan as one job of CI hands it to the next, and its digest, which goes another way."""
    outputs = tmp_path / "outputs"
    outputs.touch()
    path = tmp_path / "plan.json"
    environ = {"GITHUB_OUTPUT": str(outputs)}
    ran = repo.run("ci", "plan", "--format", "github", "--output", str(path), environ=environ)
    assert ran.code == 0, ran.err
    digest = dict(line.split("=", 1) for line in ran.out.splitlines())["plan-sha256"]
    assert digest in outputs.read_text()
    return path, digest


def test_no_job_takes_a_plan_with_another_digest(repo, tmp_path):
    repo.environ["LAGO_IMAGES_REPOSITORY"] = str(tmp_path / "image-repo")
    path, digest = saved_plan(repo, tmp_path)
    names = ("one", "one-layer", "two")
    plan = ("--plan", str(path), "--plan-sha256", digest)
    assert repo.run("ci", "build", *plan, *names).code == 0
    right = path.read_text()
    path.write_text(right.replace('"partial": false', '"partial": true'))
    for command in (("ci", "build", *plan, *names), ("ci", "publish", *plan)):
        ran = repo.run(*command)
        assert (ran.code, "is not the plan that was made" in ran.err) == (2, True)
    by_environ = {"LAGO_IMAGES_PLAN_SHA256": digest}
    assert repo.run("ci", "publish", "--plan", str(path), environ=by_environ).code == 2
    assert repo.run("ci", "publish", environ=by_environ).code == 2
    assert repo.run("ci", "publish", "--plan-sha256", "x", "--plan", str(path)).code == 2
    path.write_text(right)
    ran = repo.run("ci", "publish", "--plan", str(path), environ=by_environ)
    assert ran.code == 0, ran.err
    assert revisions(repo) == {"one": 1, "one-layer": 1, "two": 1}


def test_uncommitted_changes_are_recorded_and_warned_of(repo):
    repo.disk("image-specs/files/two.img", seed=3)
    ran = rebuild(repo)
    warning = f"NOT COMMITTED: image-specs/files/two.img differs from commit {repo.head[:7]}"
    warning += "; published all the same"
    assert ran.err.count("NOT COMMITTED") == ran.err.count(warning) == 1, ran.err
    manifests = [
        json.loads(path.read_text()) for path in (repo.root / "image-repo").rglob("manifest.json")
    ]
    # The others are of the commit, whatever else lies beside their files.
    dirty = {(manifest["name"], manifest["dirty"]) for manifest in manifests}
    assert dirty == {("one", False), ("one-layer", False), ("two", True)}
    listed = repo.run("repo", "list").out.splitlines()[1:]
    assert all(repo.head[:7] in line for line in listed), listed
    assert {line.split()[0]: line.endswith("+") for line in listed} == dict(dirty)
    verified = repo.run("repo", "verify")
    assert verified.code == 0, verified.out
    note = "note: releases/two/x86_64/1.json: it was built from files that were not committed"
    assert [line for line in verified.out.splitlines() if "not committed" in line] == [note]
    again = repo.run("ci", "rebuild", "--changed")
    assert "NOT COMMITTED" not in again.err, "nothing was published then"
    kept = repo.run("ci", "plan").out
    assert f"of commit {repo.head[:7]} and files that were not committed then" in kept


def test_what_is_not_committed_is_told_once_and_of_the_images_that_are_built(repo):
    repo.disk("image-specs/files/two.img", seed=3)
    repo.disk("image-specs/files/one.img", seed=4)
    differ = "image-specs/files/one.img, image-specs/files/two.img differ from commit"
    for dry in (("ci", "plan"), ("ci", "rebuild", "--all", "--dry-run")):
        ran = repo.run(*dry)
        assert ran.err.count(f"note: not committed: {differ}") == 1, ran.err
        assert "not committed" not in ran.out
    # A layer is made of what its base is made of.
    for name, path in (("two", "two.img"), ("one-layer", "one.img")):
        ran = repo.run("build", name)
        assert ran.code == 0, ran.err
        [warning] = [line for line in ran.err.splitlines() if "NOT COMMITTED" in line]
        assert f": image-specs/files/{path} differs from commit" in warning
    again = repo.run("ci", "plan")
    assert "not committed" not in again.err, "nothing is to be built"


def test_a_file_that_git_does_not_have_is_told_as_such_and_once(repo):
    repo.spec("mine", "simple:disks/mine.qcow2")
    repo.spec("other", "simple:disks/other.img")
    repo.write(".gitignore", "*.qcow2\n*/\n!disks/\n!image-specs/\n")
    repo.commit()
    repo.disk("disks/mine.qcow2")
    repo.disk("disks/other.img")
    ran = repo.run("ci", "publish")
    [warning] = [line for line in ran.err.splitlines() if "NOT COMMITTED" in line]
    assert "disks/other.img is in no commit; disks/mine.qcow2 is ignored by git" in warning
    assert "(.gitignore) and in no commit: commit it, or name its URL" in warning


@pytest.mark.parametrize("command", [("ci", "rebuild", "--changed"), ("ci", "publish")])
def test_uncommitted_changes_are_refused_for_a_bucket(repo, ceph20, command):
    bucket = ceph20.new_bucket()
    repo.environ.update(ceph20.environ)
    repo.environ["LAGO_IMAGES_REPOSITORY"] = f"s3://{bucket}/images"
    repo.environ["LAGO_IMAGES_BASE_URL"] = "http://images.example.org"
    repo.disk("image-specs/files/two.img", seed=3)
    ran = repo.run(*command)
    assert (ran.code, ran.out) == (2, "")
    assert "image-specs/files/two.img differs from commit" in ran.err
    assert "--allow-dirty" in ran.err
    assert ceph20.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    if command[1] == "rebuild":
        ran = repo.run(*command, "--allow-dirty")
        assert (ran.code, "NOT COMMITTED" in ran.err) == (0, True), ran.err


def test_a_pull_requests_build_is_promoted_and_not_built_again(repo):
    for chain in repo.run("ci", "plan", "--format", "json").json()["chains"]:
        assert repo.run("ci", "build", *chain).code == 0
    assert set(actions(repo).values()) == {"promote"}
    ran = rebuild(repo)
    assert revisions(repo) == {"one": 1, "one-layer": 1, "two": 1}
    builds = list((repo.root / "image-repo/builds").glob("*/*/*/manifest.json"))
    assert len(builds) == 3, ran.err


def test_build_does_the_older_tools_whole_job(repo):
    ran = repo.run(
        "build", "--repo-dir", "out", "--repo-name", "myrepo", "--base-url", "http://myrepo/"
    )
    assert ran.code == 0, ran.err
    metadata = json.loads((repo.root / "out/repo.metadata").read_text())
    assert metadata["name"] == "myrepo"
    assert [source["args"] for source in metadata["sources"].values()] == [
        {"baseurl": "http://myrepo"}
    ]
    assert set(metadata["templates"]) == {"one", "one-layer", "two"}


def test_a_first_build_that_fails_leaves_an_empty_repository_empty(repo):
    (repo.root / "image-specs/two").unlink()
    repo.write("image-specs/files/one.img", b"\x1f\x8b\x08 this is no gzip file")
    repo.commit("Only what cannot be built")
    ran = repo.run("ci", "rebuild", "--changed")
    assert ran.code == 1
    published = repo.root / "image-repo"
    assert not [path for path in published.glob("*") if path.is_file()]
    assert not list(published.glob("builds/**/*.*"))


def test_the_logs_of_a_failed_run_survive_the_next_run(repo):
    repo.write("image-specs/files/two.img", b"\x1f\x8b\x08 this is no gzip file")
    said = [repo.run("build", "two").err for _ in range(2)]
    logs = {
        Path(line.removeprefix("two: log: "))
        for err in said
        for line in err.splitlines()
        if line.startswith("two: log: ")
    }
    assert len(logs) == 2
    assert all("error: " in log.read_text() for log in logs)


def test_a_partial_publication_does_not_move_the_published_commit(repo):
    """Else the rest would be planned as what was published once and is missing."""
    rebuild(repo, "two")
    assert not (repo.root / "image-repo/state/published.json").exists()
    assert reasons(repo, "one") == [
        {"kind": "new", "detail": "image-specs/one: nothing is published yet"}
    ]
    rebuild(repo)
    start = repo.head
    repo.spec("three", "simple:image-specs/files/two.img")
    repo.commit("Add three")
    rebuild(repo, "two")
    published = repo.root / "image-repo/state/published.json"
    assert json.loads(published.read_text())["commit"] == start
    [reason] = reasons(repo, "three")
    assert (reason["kind"], "Add three" in reason["detail"]) == ("new", True)
    rebuild(repo)
    assert json.loads(published.read_text())["commit"] == repo.head


@pytest.fixture
def reverted(tmp_path):
    """A published commit; a second that changes the image and is built; a third that reverts it."""
    repo = SpecsRepo.create(
        tmp_path / "specs", {"LAGO_IMAGES_REPOSITORY": str(tmp_path / "image-repo")}
    )
    repo.disk("image-specs/files/one.img", seed=1)
    repo.spec("one", "simple:image-specs/files/one.img")
    repo.commit("Add an image")
    rebuild(repo)
    repo.spec("one", "simple:image-specs/files/one.img", "#notes=second")
    changed = repo.commit("Change it")
    plan = tmp_path / "changed.json"
    plan.write_text(repo.run("ci", "plan", "--format", "json").out)
    assert repo.run("ci", "build", "--plan", str(plan), "one").code == 0
    repo.spec("one", "simple:image-specs/files/one.img")
    repo.commit("Revert it")
    git(repo.root, "worktree", "add", "-q", str(tmp_path / "second"), changed)
    return repo, SpecsRepo(root=tmp_path / "second", environ=repo.environ), plan


def offered(repo):
    index = (repo.root.parent / "image-repo/index").read_text().splitlines()
    shown = [line for line in index if line.startswith(("revision=", "notes="))]
    published = json.loads((repo.root.parent / "image-repo/state/published.json").read_text())
    assert published["commit"] == repo.head
    return shown


def test_a_commit_that_was_reverted_and_published_late_replaces_nothing(reverted):
    repo, second, plan = reverted
    rebuild(repo)
    late = second.run("ci", "publish", "--plan", str(plan))
    assert (late.code, late.out) == (0, "one: superseded by a newer commit's revision 1\n")
    assert offered(repo) == ["revision=1"]


def test_a_release_of_a_reverted_commit_made_after_the_plan_is_replaced(reverted):
    repo, second, plan = reverted
    newer = plan.with_name("reverted.json")
    newer.write_text(repo.run("ci", "plan", "--format", "json").out)
    assert second.run("ci", "publish", "--plan", str(plan)).out == "one: released revision 2\n"
    ran = repo.run("ci", "publish", "--plan", str(newer))
    assert (ran.code, ran.out) == (0, "one: released revision 3\n")
    assert offered(repo) == ["revision=3"]
    assert "nothing to build" in rebuild(repo).out
    # The change can still come back.
    repo.spec("one", "simple:image-specs/files/one.img", "#notes=second")
    repo.commit("Change it after all")
    rebuild(repo)
    assert offered(repo) == ["revision=4", "notes=second"]


def test_a_run_with_nothing_to_do_makes_few_requests(repo, ceph20):
    bucket = ceph20.new_bucket()
    with FaultProxy(ceph20.endpoint) as proxy:
        repo.environ.update(ceph20.through(proxy.endpoint).environ)
        repo.environ["LAGO_IMAGES_REPOSITORY"] = f"s3://{bucket}/images"
        repo.environ["LAGO_IMAGES_BASE_URL"] = "http://images.example.org"
        rebuild(repo)
        proxy.requests.clear()
        assert "nothing to build" in rebuild(repo).out
        assert {request.method for request in proxy.requests} == {"GET"}
        # Three of them ask for what the verdict on the store rests on, five for the pages, their
        # feed and images.json.
        assert len(proxy.requests) <= 23
        # Nothing is done by mistake when something is: what is not rendered, or not recorded.
        key = {"Bucket": bucket, "Key": "images/index"}
        index = ceph20.client().get_object(**key)["Body"].read()
        ceph20.client().put_object(**key, Body=b"edited by hand")
        assert "changed: index" in rebuild(repo).err
        assert ceph20.client().get_object(**key)["Body"].read() == index
        repo.write("README.md", "hello again\n")
        repo.commit()
        rebuild(repo)
        record = ceph20.client().get_object(Bucket=bucket, Key="images/state/published.json")
        assert json.load(record["Body"])["commit"] == repo.head


def test_the_exit_code_of_a_plan_shows_if_there_is_something_to_do(repo):
    assert repo.run("ci", "plan").code == 0
    assert repo.run("ci", "plan", "--exit-code").code == 3
    assert repo.run("ci", "plan", "--exit-code", "nosuch").code == 2
    ran = rebuild(repo)
    assert re.search(r"^image +verdict +revision +size +time +changes$", ran.err, re.MULTILINE)
    assert re.search(r"^one +released +1 .* s +new$", ran.err, re.MULTILINE)
    assert repo.run("ci", "plan", "--exit-code").code == 0
    assert repo.run("ci", "plan", "--exit-code", "one").code == 3
