"""The real workflow files under act: real git with a bare remote, a real store, no container."""

import hashlib
import os
import re
from dataclasses import replace

import pytest

from lago_images.jobs import results
from lago_images.repository.records.layout import release_key
from lago_images.repository.records.release import ObjectDigest, Release
from tests.servers.model import Server
from tests.support.act import GitHubHost
from tests.support.ci import failed
from tests.support.keys import make_key
from tests.support.policies import published_bucket
from tests.support.specs import SpecsRepo, git
from tests.tools import need

SECRETS = {
    "BUILDER_ACCESS_KEY_ID": "builderkey",
    "BUILDER_SECRET_ACCESS_KEY": "buildersecret",
    "PUBLISHER_ACCESS_KEY_ID": "publisherkey",
    "PUBLISHER_SECRET_ACCESS_KEY": "publishersecret",
}
pytestmark = pytest.mark.real


def keys(server: Server, bucket: str) -> set[str]:
    """What is in the bucket, less the caches and what a probe left."""
    found = server.client().list_objects_v2(Bucket=bucket).get("Contents", [])
    return {e["Key"] for e in found if not e["Key"].startswith("state/")}


def host_for(tmp_path, server: Server, bucket: str) -> GitHubHost:
    need("git", "node", "npm")
    host = GitHubHost.create(
        tmp_path,
        variables={
            "LAGO_IMAGES_REPOSITORY": f"s3://{bucket}",
            "LAGO_IMAGES_BASE_URL": f"{server.endpoint}/{bucket}",
            "AWS_ENDPOINT_URL_S3": server.endpoint,
            "AWS_REGION": "us-east-1",
        },
        environ={"AWS_EC2_METADATA_DISABLED": "true", "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    host.specs.write("lago-images.toml", 'name = "test"\n')
    return host


def releases(found: set[str]) -> set[str]:
    return {key for key in found if key.startswith("releases/")}


def outcomes(log: str) -> dict[str, str]:
    """What the step summary says of each image."""
    rows = re.findall(r"^\| <code>([\w-]+)</code> \| \S+ ([a-z ]+) \|", log, re.MULTILINE)
    return dict(rows)


def test_a_pull_request_is_built_promoted_and_published(tmp_path, ceph20):
    bucket = published_bucket(ceph20)
    host = host_for(tmp_path, ceph20, bucket)
    host.specs.disk("disk.raw")
    host.specs.spec("one", "simple:disk.raw")
    host.specs.spec("two", "simple:disk.raw")

    first = host.push("Start", secrets=SECRETS)
    assert first.code == 0, first.log
    assert outcomes(first.log) == {"one": "released", "two": "released"}
    found = keys(ceph20, bucket)
    assert releases(found) == {"releases/one/x86_64/1.json", "releases/two/x86_64/1.json"}

    # A change of one spec: only its chain is built, into builds/ and nowhere else.
    host.specs.spec("one", "simple:disk.raw", "#notes=changed")
    asked = host.pull_request(7, "Change one", secrets=SECRETS)
    assert asked.code == 0, asked.log
    assert set(asked.jobs) == {"plan", "build one", "report", "all"}
    assert outcomes(asked.log) == {"one": "built"}
    new = keys(ceph20, bucket) - found
    assert new
    assert {key.split("/")[0:2] == ["builds", "one"] for key in new} == {True}

    # Merging it releases those bytes: no job builds.
    merged = host.merge(7, secrets=SECRETS)
    assert merged.code == 0, merged.log
    assert set(merged.jobs) == {"plan", "publish", "report", "all"}
    assert outcomes(merged.log) == {"one": "released"}
    found |= new
    released = keys(ceph20, bucket) - found
    assert releases(released) == {"releases/one/x86_64/2.json"}
    copied = {key.rpartition("/")[2] for key in released - releases(released)}
    assert {key.split("/")[0] for key in released} == {"images", "releases"}
    assert copied == {key.rpartition("/")[2] for key in new} | {"sbom.cdx.json", "spec.txt"}

    # A push that touches no spec builds and releases nothing.
    found = keys(ceph20, bucket)
    host.specs.write("README.md", "Nothing of note.\n")
    idle = host.push("Write a README", secrets=SECRETS)
    assert idle.code == 0, idle.log
    assert not any(job.startswith("build") for job in idle.jobs)
    assert "No image is affected." in idle.log
    assert idle.jobs["all"]
    assert keys(ceph20, bucket) == found


def test_a_pull_request_builds_what_it_changes_and_not_what_others_merged(own):
    """GitHub tells the base's commit of when it was opened, and merges it with a newer one."""
    own.specs.disk("disk.raw")
    own.specs.spec("one", "simple:disk.raw")
    own.push("Start", event=False)
    opened = own.specs.head
    own.specs.spec("theirs", "simple:disk.raw")
    own.push("Add theirs", event=False)
    own.specs.spec("mine", "simple:disk.raw")
    ran = own.pull_request(5, "Add mine", opened=opened)
    assert ran.code == 0, ran.log
    assert outcomes(ran.log) == {"mine": "built"}


def test_a_merge_queue_builds_the_merged_state_and_publishes_nothing(own, tmp_path):
    """One check says how it went, whatever the chains are called."""
    own.specs.disk("disk.raw")
    own.specs.spec("one", "simple:disk.raw")
    first = own.push("Start")
    assert first.code == 0, first.log
    found = set(tmp_path.glob("published/releases/*/*/*.json"))
    base = own.specs.head
    own.specs.spec("mine", "simple:disk.raw")
    own.specs.commit("Add mine")
    ref = f"refs/heads/gh-readonly-queue/main/pr-6-{base}"
    # act does not know this event's ref, and takes the default branch's.
    for where in (ref, "refs/heads/main"):
        git(own.specs.root, "push", "-q", str(own.remote), f"HEAD:{where}")
    group = {"merge_group": {"base_sha": base, "base_ref": "refs/heads/main", "head_ref": ref}}
    queued = own.event("merge_group", group, ref=ref)
    assert queued.code == 0, queued.log
    assert queued.jobs == {"plan": True, "build mine": True, "report": True, "all": True}
    assert outcomes(queued.log) == {"mine": "built"}
    assert set(tmp_path.glob("published/releases/*/*/*.json")) == found


def test_every_manifest_and_disk_is_attested(own, tmp_path):
    """By a stand-in: neither Sigstore nor GitHub's context of the called workflow is here."""
    workflow = own.specs.root / ".github/workflows/images.yml"
    workflow.write_text(
        workflow.read_text().replace("    with:\n", "    with:\n      attest: true\n")
    )
    own.specs.disk("disk.raw")
    own.specs.spec("one", "simple:disk.raw")
    ran = own.push("Start")
    assert ran.code == 0, ran.log
    [manifest] = (tmp_path / "published/builds/one").rglob("manifest.json")
    digests = {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (manifest, manifest.parent / "one.qcow2.xz")
    }
    assert set(re.findall(r"attested ([0-9a-f]{64})  ", ran.log)) == digests
    # A fork's pull request has no permission to attest, and is built all the same.
    own.specs.spec("two", "simple:disk.raw")
    fork = own.pull_request(3, "Add two", fork=True)
    assert fork.code == 0, fork.log
    assert "attested " not in fork.log


def test_a_chain_waits_for_a_runner_of_its_architecture(own):
    """act has runners for the usual label alone, and says which others a job asks for.

    One architecture at a time: act 0.2.89 gives all jobs of a matrix the label of the first.
    """
    own.variables["LAGO_IMAGES_RUNNERS"] = '{"ppc64le": ["self-hosted", "power"]}'
    own.specs.disk("disk.raw")
    own.push("Start", event=False)
    for arch, labels in (("aarch64", ["ubuntu-24.04-arm"]), ("ppc64le", ["self-hosted", "power"])):
        spec = own.specs.spec("one", "simple:disk.raw")
        spec.write_text(spec.read_text().replace("#arch=x86_64", f"#arch={arch}"))
        ran = own.pull_request(len(arch), f"Build for {arch}")
        asked = re.findall(r"build one.*Try running with `-P (\S+)=", ran.log)
        assert asked == labels, ran.log


def test_a_forks_pull_request_gets_no_secret_and_publishes_nothing(tmp_path, ceph20):
    """GitHub gives it no variables either: what it plans with is in the repository."""
    bucket = published_bucket(ceph20)
    host = replace(host_for(tmp_path, ceph20, bucket), variables={})
    host.specs.write(
        "lago-images.toml",
        f'repository = "s3://{bucket}"\nbase-url = "{ceph20.endpoint}/{bucket}"\n',
    )
    workflow = host.specs.root / ".github/workflows/images.yml"
    store = f"    with:\n      endpoint-url: {ceph20.endpoint}\n      region: us-east-1\n"
    workflow.write_text(workflow.read_text().replace("    with:\n", store))
    host.specs.disk("disk.raw")
    host.specs.spec("one", "simple:disk.raw")
    host.specs.spec("other", "simple:disk.raw")
    assert host.push("Start", secrets=SECRETS).code == 0
    found = keys(ceph20, bucket)
    host.specs.spec("one", "simple:disk.raw", "#notes=changed")
    # What GitHub would withhold is offered here, so that the workflow has to.
    ran = host.pull_request(8, "Change one", fork=True, secrets=SECRETS)
    assert ran.code == 0, ran.log
    assert "publish" not in ran.jobs
    assert outcomes(ran.log) == {"one": "built"}
    assert re.search(r"^\| <code>one</code> .*B → .*B ", ran.log, re.MULTILINE)
    assert keys(ceph20, bucket) == found
    for secret in SECRETS.values():
        assert secret not in ran.log.replace(ceph20.endpoint, "")


def test_the_role_of_an_environment_is_used_by_its_builders_only(tmp_path, ceph20):
    """The stand-in for the action that assumes a role fails, so whoever does not can go on."""
    bucket = published_bucket(ceph20)
    host = host_for(tmp_path, ceph20, bucket)
    host.variables["LAGO_IMAGES_BUILDER_ROLE"] = "arn:aws:iam::1:role/builder"
    workflow = host.specs.root / ".github/workflows/images.yml"
    builders = (
        "    with:\n      builder-environment: builders\n      role-duration-seconds: 10800\n"
    )
    workflow.write_text(workflow.read_text().replace("    with:\n", builders))
    host.specs.disk("disk.raw")
    host.push("Start", event=False)
    host.specs.spec("one", "simple:disk.raw")
    asked = host.pull_request(9, "Add one")
    assert asked.code == 0, asked.log
    assert outcomes(asked.log) == {"one": "built"}
    assert asked.steps("Assume the builder's role") == []
    assert keys(ceph20, bucket) == set()

    merged = host.merge(9)
    [job] = merged.steps("Assume the builder's role")
    assert "build one" in job
    # As long as the builds may take: the credentials are taken once, before them.
    assert "cannot assume arn:aws:iam::1:role/builder for 10800 s" in merged.output
    assert (merged.jobs["plan"], merged.jobs["report"]) == (True, True)


def test_a_failing_image_fails_the_run_and_the_others_are_published(tmp_path, ceph20):
    bucket = published_bucket(ceph20)
    host = host_for(tmp_path, ceph20, bucket)
    host.specs.disk("disk.raw")
    host.specs.write("broken.raw.xz", b"\xfd7zXZ\x00 and no more")
    host.specs.spec("bad", "simple:broken.raw.xz")
    host.specs.spec("good", "simple:disk.raw")
    ran = host.push("Start", secrets=SECRETS)
    assert ran.code != 0
    # act marks all of a matrix as failed, so the steps are looked at.
    assert re.search(r"build bad-\d.*❌  Failure - Main Build", ran.log)
    assert re.search(r"build good-\d.*✅  Success - Main Build", ran.log)
    assert not ran.jobs["all"]
    assert outcomes(ran.log) == {"bad": "failed", "good": "released"}
    assert releases(keys(ceph20, bucket)) == {"releases/good/x86_64/1.json"}
    assert "broken.raw.xz" in ran.log


def test_an_invalid_spec_is_annotated_at_its_line(tmp_path, ceph20):
    host = host_for(tmp_path, ceph20, published_bucket(ceph20))
    host.specs.spec("bad", "simple:disk.raw", "instal vim")
    ran = host.push("Add bad", secrets=SECRETS)
    assert ran.code != 0
    assert ran.jobs == {"plan": False, "all": False}
    assert re.search(r"^::error file=image-specs/bad,line=\d+::", ran.output, re.MULTILINE)


@pytest.fixture
def own(tmp_path) -> GitHubHost:
    """A repository of one's own: the reusable workflow and the tools come from this project's."""
    need("git", "node", "npm")
    host = GitHubHost.create(
        tmp_path,
        variables={"LAGO_IMAGES_REPOSITORY": f"file://{tmp_path}/published"},
        environ={"XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    tools = SpecsRepo.create(tmp_path / "tools")
    for part in (".github", "ci"):
        (host.specs.root / part).rename(tools.root / part)
    tools.commit("Tools")
    bare = tmp_path / "remotes/lago-project/lago-images.git"
    git(tmp_path, "clone", "-q", "--bare", str(tools.root), str(bare))
    assert host.specs.run("init").code == 0
    (host.specs.root / "image-specs/my-debian-12").unlink()
    path = host.specs.root / ".github/workflows/images.yml"
    workflow = path.read_text()
    used, ref = re.search(r" uses: ([^/\s]+/[^/\s]+)/.*@(\S+)", workflow).groups()
    workflow = workflow.replace(used, "lago-project/lago-images").replace(ref, "main")
    host.replaced["lago-project/lago-images@main"] = tools.root
    path.write_text(workflow.replace("    with:\n", '    with:\n      submodules: "true"\n'))
    return host


def submodule(host: GitHubHost, tmp_path) -> None:
    """The folder ``disks``, a submodule with a disk in it."""
    disks = SpecsRepo.create(tmp_path / "disks")
    disks.disk("disk.raw")
    disks.commit("Disk")
    git(host.specs.root, "submodule", "--quiet", "add", f"file://{disks.root}", "disks")


def test_both_keys_sign_during_a_rotation(own, tmp_path):
    """Pull requests sign nothing, whatever they are offered."""
    published = tmp_path / "published"
    old, new = make_key(tmp_path, "old"), make_key(tmp_path, "new")
    first = {"SIGNING_KEY": old.secret.read_text()}
    both = {**first, "NEXT_SIGNING_KEY": new.secret.read_text()}
    own.specs.disk("disk.raw")
    own.specs.spec("one", "simple:disk.raw")
    ran = own.push("Start", secrets=first)
    assert ran.code == 0, ran.log
    assert signed(published) == {old.fingerprint}

    own.specs.spec("two", "simple:disk.raw")
    asked = own.pull_request(4, "Add two", secrets=both)
    assert asked.code == 0, asked.log
    assert signed(published) == {old.fingerprint}
    ran = own.merge(4, secrets=both)
    assert ran.code == 0, ran.log
    assert signed(published) == {old.fingerprint, new.fingerprint}
    for log in (asked.log, ran.log):
        assert not any(text in log for text in both.values())

    # The last step of the documents: the new key is the only one, and says so once.
    only = {"SIGNING_KEY": new.secret.read_text()}
    own.specs.write("README.md", "Nothing of note.\n")
    early = own.push("Write a README", secrets=only)
    assert (early.code, signed(published)) == (1, {old.fingerprint, new.fingerprint})
    done = own.specs.run(
        *("repo", "refresh", "--retire-key", old.fingerprint, "--repository", str(published)),
        environ={"LAGO_IMAGES_SIGNING_KEY": f"file:{new.secret}"},
    )
    assert done.code == 0, done.err
    assert signed(published) == {new.fingerprint}
    own.specs.spec("three", "simple:disk.raw")
    ran = own.push("Add three", secrets=only)
    assert ran.code == 0, ran.log
    assert "[three]" in (published / "index.asc").read_text()


def signed(published) -> set[str]:
    """The keys with an index of their own."""
    return {path.name[len("index-") : -len(".asc")] for path in published.glob("index-*.asc")}


def grow_old(published, name: str) -> None:
    """Let the builds of an image be of forty days ago, by all that is on record."""
    for path in (published / "releases" / name).rglob("*.json"):
        key = release_key(path.relative_to(published).as_posix())
        release = Release.parse(path.read_bytes(), key)
        image = release.image
        manifest = replace(image.manifest, created=image.manifest.created - 40 * 86400)
        data = manifest.to_json()
        digest = ObjectDigest(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        objects = {**image.objects, "manifest.json": digest}
        old = replace(release, image=replace(image, manifest=manifest, objects=objects))
        path.write_bytes(old.to_json())
        (published / image.public.manifest).write_bytes(data)


def test_a_manual_run_rebuilds_names_and_a_schedule_only_what_is_outdated(own, tmp_path):
    published = tmp_path / "published"
    submodule(own, tmp_path)
    workflow = own.specs.root / ".github/workflows/images.yml"
    workflow.write_text(workflow.read_text().replace("    with:\n", "    with:\n      lfs: true\n"))
    own.specs.spec("one", "simple:disks/disk.raw")
    own.specs.spec("two", "simple:disks/disk.raw")
    own.push("Start", event=False)
    by_hand = own.event("workflow_dispatch", {"inputs": {"names": "one"}})
    assert by_hand.code == 0, by_hand.log
    assert outcomes(by_hand.log) == {"one": "released", "two": "released"}
    assert re.search(r"^\| <code>one</code> .*forced:", by_hand.log, re.MULTILINE)
    # Only builds read the files: a plan knows them by what git holds, and nobody else looks.
    told = re.findall(r"^\[(.+?)\] *\| files in Git LFS are asked for", by_hand.log, re.MULTILINE)
    assert {re.sub(r"-\d+ *$", "", job.rpartition("/")[2]) for job in told} == {
        "build one",
        "build two",
    }
    assert (published / "releases/one/x86_64/1.json").is_file()

    # GitHub dropped the run of this push, and says of a schedule's event no repository.
    own.specs.spec("three", "simple:disks/disk.raw")
    own.push("Add three", event=False)
    grow_old(published, "two")
    scheduled = own.event("schedule", {"schedule": "23 4 * * 1", "repository": {}})
    assert scheduled.code == 0, scheduled.log
    # It is old, and a build of it would give the same: its spec binds the disk.
    assert outcomes(scheduled.log) == {"three": "released"}
    old = own.specs.run("ci", "plan", "--stale", "30", "--repository", str(published)).out
    assert "stale: revision 1 was built" in " ".join(old.split())
    releases = {path.relative_to(published) for path in published.glob("releases/*/*/*.json")}
    assert {str(path)[len("releases/") :] for path in releases} == {
        "one/x86_64/1.json",
        "two/x86_64/1.json",
        "three/x86_64/1.json",
    }


# What a job would write through a link, if it took these for what an earlier job handed over.
LINKS = ("plan.json", "results.xml", "results/one.results.json", "logs/one.log")
# Where the tools might be looked for, in the specs or from there.
TOOLS = (".lago-images", "tools", "specs/tools", "ci")


def test_committed_files_never_replace_files_passed_between_jobs(own, tmp_path):
    """Else who may merge specs writes the publisher's scripts, or says what is to be released."""
    pwned, root = tmp_path / "pwned", own.specs.root
    for place in LINKS:
        (root / place).parent.mkdir(exist_ok=True)
        # The tools are beside the specs, where a link can lead and no commit can be.
        (root / place).symlink_to(
            os.path.relpath(root.parent / "tools/ci/publish", root / place / "..")
        )
    for script in ("setup-host", "lint", "plan", "build", "publish", "report"):
        own.specs.write(f"evil/ci/{script}", f"#!/bin/sh\ntouch {pwned}\n").chmod(0o755)
    for place in TOOLS:
        (root / place).parent.mkdir(exist_ok=True)
        (root / place).symlink_to(os.path.relpath(root / "evil", root / place / ".."))
    own.specs.write("results/zzz.results.json", results.dump([failed("one")]))
    own.specs.disk("disk.raw")
    own.specs.spec("one", "simple:disk.raw")
    first = own.push(f"Add $(touch {pwned})")
    assert first.code == 0, first.log
    own.specs.spec("one", "simple:disk.raw", "#notes=changed")
    second = own.push(f"Change `touch {pwned}`")
    assert second.code == 0, second.log
    assert outcomes(second.log) == {"one": "released"}
    assert (tmp_path / "published/releases/one/x86_64/2.json").is_file()
    assert not pwned.exists()
