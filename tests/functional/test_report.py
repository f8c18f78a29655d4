"""``lago-images ci report`` against a repository: sizes, packages, boot tests and logs."""

import re

import pytest

from lago_images.building.model import Result
from lago_images.jobs import results
from lago_images.planning import formats
from lago_images.storage.directory.store import DirectoryStore
from tests.support import builders
from tests.support.ci import plan, planned
from tests.support.specs import SpecsRepo
from tests.unit.ci.report.test_markdown import rendered

BEFORE = b"bash 5.1 amd64\ncurl 8.0 amd64\nold 1 amd64\n"
AFTER = b"bash 5.2 amd64\ncurl 8.0 amd64\nnew 1~rc1+b2 amd64\n"
URL = "https://images.example/repo"


@pytest.fixture
def repo(tmp_path) -> SpecsRepo:
    """One image whose first build is public, and a second one that a job has just built."""
    made = SpecsRepo.create(
        tmp_path / "specs",
        environ={
            "LAGO_IMAGES_REPOSITORY": str(tmp_path / "public"),
            "LAGO_IMAGES_BASE_URL": URL,
            "BUILD_URL": "https://ci.example/run/1",
        },
    )
    store = DirectoryStore(path=tmp_path / "public")
    builders.publish_by_hand(store, builders.manifest(build_id="b1", packages=3))
    (tmp_path / "public" / builders.copy_of(builders.manifest()).packages).write_bytes(BEFORE)
    new = builders.manifest(build_id="build-2", fingerprint="sha256:f2", packages=3)
    ended = Result(name="debian-12", arch="x86_64", manifest=new, seconds=75.0)
    results.write_folder(made.root / "results", [ended])
    made.write("plan.json", formats.to_json(plan(planned(fingerprint="sha256:f2"))))
    return made


def cells(repo: SpecsRepo) -> tuple[list[str], str]:
    ran = repo.run("ci", "report")
    assert ran.code == 0, ran.err
    shown = rendered(ran.out)
    return re.findall(r"<td>(.*?)</td>", shown)[:8], shown


def check(row: list[str], shown: str) -> None:
    assert row[4].startswith("24 B → 29 B (+")
    assert row[5] == "+1 -1 ↑1"
    assert row[6] == "bios 31 s, uefi 53 s (TCG: emulation without KVM)"
    packages = [tuple(re.findall(r"<td>(.*?)</td>", part)) for part in shown.split("<tr>")]
    assert ("<code>bash</code>", "<code>5.1</code>", "<code>5.2</code>") in packages
    assert ("<code>new</code>", "", "<code>1~rc1+b2</code>") in packages
    assert ("<code>old</code>", "<code>1</code>", "") in packages
    assert "curl" not in shown


NEW = builders.manifest(build_id="build-2", fingerprint="sha256:f2", packages=3)


def test_a_staged_build_is_compared_with_the_published_one(repo, tmp_path):
    """Its log is the run's: nobody can read what is staged."""
    staging = builders.put_build(DirectoryStore(path=tmp_path / "public"), NEW)
    (tmp_path / "public" / staging.packages).write_bytes(AFTER)
    row, shown = cells(repo)
    check(row, shown)
    assert row[7] == '<a href="https://ci.example/run/1">log</a>'


def test_a_released_build_is_compared_by_its_public_copy(repo, tmp_path):
    store = DirectoryStore(path=tmp_path / "public")
    copy = builders.put_copy(store, NEW)
    (tmp_path / "public" / copy.packages).write_bytes(AFTER)
    builders.put_release(store, builders.release(2, NEW))
    assert repo.run("repo", "refresh").code == 0
    row, shown = cells(repo)
    check(row, shown)
    assert row[7] == f'<a href="{URL}/{copy.log}">log</a>'


def test_links_lead_to_the_published_repository_only(repo, tmp_path):
    """The settings are the pull request's own, and the comment is signed by our token."""
    evil = {"LAGO_IMAGES_BASE_URL": "https://evil.example/"}
    store = DirectoryStore(path=tmp_path / "public")
    key = builders.put_copy(store, NEW)
    builders.put_release(store, builders.release(2, NEW))
    assert repo.run("repo", "refresh").code == 0
    assert "evil" not in repo.run("ci", "report", environ=evil).out
    assert f'href="{URL}/{key.log}"' in rendered(repo.run("ci", "report", environ=evil).out)
    # A repository that has published no file of its own gets no link to it.
    (tmp_path / "public/repo.metadata").unlink()
    row, _ = cells(repo)
    assert row[7] == '<a href="https://ci.example/run/1">log</a>'


def test_the_report_without_a_repository_has_no_sizes(repo, tmp_path):
    """The plan and the results are here: a report needs nothing that may just have failed."""
    environ = {
        "LAGO_IMAGES_REPOSITORY": "s3://bucket/prefix",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_MAX_ATTEMPTS": "1",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    ran = repo.run("ci", "report", "--junit", "junit.xml", environ=environ)
    assert ran.code == 0, ran.err
    assert "sizes and packages are left out of the report" in ran.err
    assert "1 image affected: 1 built." in (tmp_path / "summary.md").read_text()
    assert 'tests="1" failures="0"' in (repo.root / "junit.xml").read_text()


def test_after_a_withdrawal_the_offered_release_is_compared(repo, tmp_path):
    """The newest revision is the withdrawal's, and what it takes back is offered to nobody."""
    store = DirectoryStore(path=tmp_path / "public")
    other = builders.manifest(build_id="b2", fingerprint="sha256:f2")
    builders.put_build(store, other)
    builders.put_release(store, builders.release(2, "b2", fingerprint="sha256:f2"))
    assert repo.run("repo", "yank", "debian-12", "--reason", "broken").code == 0
    made = plan(planned(fingerprint="sha256:f2", revision=3))
    repo.write("plan.json", formats.to_json(made))
    row, _ = cells(repo)
    assert row[4].startswith("24 B → 29 B (+")


def test_a_forks_build_is_compared_by_the_artifacts_of_its_job(repo):
    """It is in no repository; its list of packages is an artifact, and its log the run's."""
    kept = "results/repository/builds/debian-12/x86_64/build-2/packages.txt"
    repo.write(kept, AFTER)
    row, shown = cells(repo)
    check(row, shown)
    assert row[7] == '<a href="https://ci.example/run/1">log</a>'


def test_packages_are_not_compared_without_both_lists(repo):
    row, _ = cells(repo)
    assert row[1] == "✅ built"
    assert row[5] == ""


def test_a_link_among_the_artifacts_is_not_followed(repo, tmp_path):
    (tmp_path / "private").write_bytes(AFTER)
    kept = repo.write("results/repository/builds/debian-12/x86_64/build-2/packages.txt", "")
    kept.unlink()
    kept.symlink_to(tmp_path / "private")
    row, shown = cells(repo)
    assert row[5] == ""
    assert "1~rc1" not in shown
