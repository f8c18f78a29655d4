"""A fault is planted in every guard of the chain of digests, and one fast test sees each.

``docs/decisions/0010-planted-bugs.md`` has the table to read. A guard that no test needs would be
removed one day as superfluous.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DECISION = ROOT / "docs/decisions/0010-planted-bugs.md"
PUBLISHING = "repository/publishing/"
PUBLISHER = "tests/unit/repository/publishing/test_publisher.py::"
MODEL = "tests/unit/repository/publishing/test_model.py::"
RETENTION = "tests/unit/repository/publishing/test_retention.py::"
CONDITIONAL = "tests/unit/storage/s3/test_conditional.py::"
RENDER = "tests/unit/repository/rendering/test_render.py::"
JUDGE = "tests/unit/jobs/test_judge.py::"
# Runs the tests on the package in the first argument, and on no other.
RUN = """
import sys, pytest, lago_images
assert lago_images.__file__.startswith(sys.argv[1] + "/"), lago_images.__file__
options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist"]
sys.exit(pytest.main([*options, *sys.argv[2:]]))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """One fault.

    Attributes:
        what: In words.
        file: Below ``lago_images/``.
        old: The text of the guard, which is in the file once.
        new: What is put in its place.
        test: The one that fails then.
    """

    what: str
    file: str
    old: str
    new: str
    test: str


BUGS = [
    Bug(
        what="If-Match dropped from requests",
        file="storage/s3/conditional.py",
        old='condition = {"IfMatch": in_dialect(write.expected, dialect)}',
        new="condition = {}",
        test=f"{CONDITIONAL}test_every_write_carries_its_condition",
    ),
    Bug(
        what="If-None-Match dropped from requests",
        file="storage/s3/conditional.py",
        old='condition = {"IfNoneMatch": "*"}',
        new="condition = {}",
        test=f"{CONDITIONAL}test_every_write_carries_its_condition",
    ),
    Bug(
        what="If-None-Match dropped from the completion of an upload in parts",
        file="storage/s3/multipart.py",
        old='{Feature.CREATION: {"IfNoneMatch": "*"}},',
        new="{},",
        test="tests/unit/storage/s3/test_upload.py::"
        "test_the_request_that_creates_an_object_has_if_none_match",
    ),
    Bug(
        what="Changed files overwritten in a directory",
        file="storage/directory/store.py",
        old="if (now and _etag(now)) != expected:",
        new="if now and expected is None:",
        test=f"{PUBLISHER}test_a_withdrawal_is_not_undone_by_a_slower_publisher",
    ),
    Bug(
        what="Releases overwritten in a directory",
        file="storage/directory/store.py",
        old="if (now and _etag(now)) != expected:",
        new="if expected is not None and (now and _etag(now)) != expected:",
        test=f"{PUBLISHER}test_a_revision_taken_by_another_publisher_is_not_overwritten",
    ),
    Bug(
        what="Releases listed before the ETags are read",
        file=f"{PUBLISHING}publisher.py",
        old="            state = read(self.store)\n",
        new="            state = read(self.store)\n"
        "            before = _read_before(self.store, self.signer)\n",
        test=f"{MODEL}test_the_models_publisher_sends_the_requests_of_the_code",
    ),
    Bug(
        what="A page written over another publisher's",
        file=f"{PUBLISHING}pages.py",
        old="    return store.put(key, data, expected=etag, headers=headers(key)), True\n",
        new="    etag = store.head(key).etag if etag else None\n"
        "    return store.put(key, data, expected=etag, headers=headers(key)), True\n",
        test=f"{PUBLISHER}test_a_page_does_not_overwrite_a_newer_one",
    ),
    Bug(
        what="Packages compared that are not those that were released",
        file=f"{PUBLISHING}package_changes.py",
        old="    if hashlib.sha256(data).hexdigest() != released.sha256:\n",
        new="    if False:\n",
        test=f"{PUBLISHER}test_package_lists_that_were_not_released_are_not_compared",
    ),
    Bug(
        what="A release made without its copy of the disk",
        file=f"{PUBLISHING}copying.py",
        old="            self.store.copy(\n",
        new="            (lambda *_a, **_n: None)(\n",
        test=f"{PUBLISHER}test_a_release_binds_a_copy_of_what_was_staged",
    ),
    Bug(
        what="A form published that the checkout does not ask for",
        file=f"{PUBLISHING}copying.py",
        old="    for form in sorted(judged.also):\n",
        new="    for form in sorted(judged.manifest.also):\n",
        test=f"{PUBLISHER}test_a_qcow2_that_was_not_asked_for_stays_staged",
    ),
    Bug(
        what="A form in a release not compared with its manifest",
        file="repository/records/release.py",
        old="            if name in self.objects and self.objects[name] != bound:\n",
        new="            if False:\n",
        test=f"{PUBLISHER}test_a_release_of_another_qcow2_than_the_manifests_is_refused",
    ),
    Bug(
        what="A build released without a form that the checkout asks for",
        file="jobs/judge.py",
        old="    if lacking := sorted(tree.also - manifest.also.keys()):\n",
        new="    if lacking := []:\n",
        test=f"{JUDGE}test_a_build_without_a_form_that_the_settings_ask_for_is_refused",
    ),
    Bug(
        what="Digest of the copy not compared",
        file="storage/base.py",
        old="        if actual != self:\n",
        new="        if actual.size != self.size:\n",
        test=f"{PUBLISHER}test_a_disk_with_other_bytes_is_never_copied",
    ),
    Bug(
        what="The copy's bytes not read",
        file="storage/directory/store.py",
        old="actual = ContentDigest(size=os.fstat(fd).st_size, sha256=digest.hexdigest())",
        new="actual = ContentDigest(size=os.fstat(fd).st_size, sha256=sha256)",
        test=f"{PUBLISHER}test_a_disk_with_other_bytes_is_never_copied",
    ),
    Bug(
        what="Digest of the manifest not compared with what was judged",
        file=f"{PUBLISHING}copying.py",
        old="    if of_manifest != judged.sha256:\n",
        new="    if False:\n",
        test=f"{PUBLISHER}test_an_overwritten_build_is_refused_with_both_digests",
    ),
    Bug(
        what="Digest of a promoted manifest not compared with the plan's",
        file="jobs/judge.py",
        old="        if image.promote_sha256 != sha256:\n",
        new="        if False:\n",
        test=f"{JUDGE}test_a_build_that_was_overwritten_after_the_plan_is_not_promoted",
    ),
    Bug(
        what="Fingerprint not compared with the publisher's own checkout",
        file="jobs/judge.py",
        old="    if manifest.fingerprint != tree.fingerprints[spec.name]:\n",
        new="    if False:\n",
        test=f"{JUDGE}test_a_forged_manifest_is_refused_for_each_false_claim",
    ),
    Bug(
        what="A build released whose spec's own tests were not run",
        file="jobs/judge.py",
        old="        if record is None:\n",
        new="        if False:\n",
        test=f"{JUDGE}test_the_tests_of_the_spec_have_passed_or_the_publishers_quarantine_holds",
    ),
    Bug(
        what="A quarantine believed past its day",
        file="specs/quarantine.py",
        old="if each.days_left(today) >= 0]",
        new="]",
        test=f"{JUDGE}test_the_tests_of_the_spec_have_passed_or_the_publishers_quarantine_holds",
    ),
    Bug(
        what="Digest of a layer's base not compared with its release",
        file=f"{PUBLISHING}releasing.py",
        old='        if manifest.base.digest != f"sha256:{sha256}":\n',
        new="        if False:\n",
        test=f"{PUBLISHER}test_a_layer_on_a_poisoned_base_is_refused_once_the_base_is_restored",
    ),
    Bug(
        what="Manifest in a release not compared with the digest beside it",
        file="repository/records/release.py",
        old="if self.objects[MANIFEST].sha256 != hashlib.sha256(manifest.to_json()).hexdigest():",
        new="if False:",
        test="tests/unit/repository/records/test_records.py::"
        "test_a_release_binds_the_disk_and_the_manifest",
    ),
    Bug(
        what="Ancestry ignored",
        file=f"{PUBLISHING}releasing.py",
        old="        is_ancestor(commit, decided)\n",
        new="        False\n",
        test=f"{PUBLISHER}test_an_older_commit_never_replaces_a_newer_ones_image",
    ),
    Bug(
        what="The published commit goes back",
        file=f"{PUBLISHING}releasing.py",
        old="(recorded.commit == commit or is_ancestor(commit, recorded.commit)):",
        new="recorded.commit == commit:",
        test=f"{PUBLISHER}test_the_published_commit_only_moves_forward",
    ),
    Bug(
        what="A withdrawn build released again",
        file=f"{PUBLISHING}releasing.py",
        old="    if taken := _taken_back(history, manifest, known_revision):\n",
        new="    if taken := None:\n",
        test=f"{PUBLISHER}test_a_withdrawn_build_is_not_released_again",
    ),
    Bug(
        what="Retirement not looked at before a release",
        file=f"{PUBLISHING}releasing.py",
        old="        _refuse_retired(wanted, listed)\n",
        new="        pass\n",
        test=f"{PUBLISHER}test_a_copy_that_gc_has_begun_to_remove_is_not_released",
    ),
    Bug(
        what="Grace period not waited for",
        file=f"{PUBLISHING}retention.py",
        old="elif copy not in bases and state.objects[copy.retirement].modified < before:",
        new="elif copy not in bases:",
        test=f"{RETENTION}test_retired_builds_are_removed_after_the_grace_period",
    ),
    Bug(
        what="Retired copies still offered",
        file="repository/records/state.py",
        old="            if release.revision > after and release.public not in self.retired\n",
        new="            if release.revision > after\n",
        test=f"{MODEL}test_the_models_gc_sends_the_requests_of_the_code",
    ),
    Bug(
        what="A damaged cache believed",
        file="repository/records/reading.py",
        old=" and kept.sha256 == _digest(kept.objects)",
        new="",
        test="tests/unit/repository/records/test_state.py::"
        "test_bytes_that_changed_in_the_cache_change_nothing",
    ),
    Bug(
        what="An alias offered that is another image's name",
        file="repository/rendering/index.py",
        old=" if a not in without]",
        new="]",
        test=f"{RENDER}test_an_alias_never_replaces_another_image",
    ),
    Bug(
        what="A document without the mark of the records that it is made of",
        file="repository/rendering/documents.py",
        old="releases=with_records(listing_mark(state, shown.image), state, [shown.image]),",
        new='releases="",',
        test="tests/unit/repository/publishing/test_outdated.py::"
        "test_a_slower_publisher_never_writes_a_document_of_an_older_list",
    ),
    Bug(
        what="Any 404 taken for a missing object",
        file="storage/s3/failures.py",
        old='status == HTTPStatus.NOT_FOUND and code == "NoSuchKey" else StorageError',
        new="status == HTTPStatus.NOT_FOUND else StorageError",
        test=f"{CONDITIONAL}test_only_a_404_of_the_key_means_missing",
    ),
]


def pytest_of(package: Path, *tests: str) -> "subprocess.CompletedProcess[str]":
    """Run tests on the copy of the package in a folder."""
    return subprocess.run(
        [sys.executable, "-P", "-c", RUN, str(package), *tests],
        cwd=ROOT,
        env={"PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def copy_to(folder: Path) -> Path:
    """Copy the package with its compiled files, so that only what is changed is compiled."""
    shutil.copytree(ROOT / "lago_images", folder / "lago_images")
    return folder


@pytest.mark.parametrize("bug", BUGS, ids=[bug.what for bug in BUGS])
def test_a_planted_bug_fails_its_test(bug: Bug, tmp_path: Path) -> None:
    path = copy_to(tmp_path) / "lago_images" / bug.file
    text = path.read_text()
    assert text.count(bug.old) == 1, f"{bug.file} has it {text.count(bug.old)} times: {bug.old}"
    path.write_text(text.replace(bug.old, bug.new))
    done = pytest_of(tmp_path, bug.test)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert "FAILED " in done.stdout


def test_the_tests_of_the_planted_bugs_pass_without_them(tmp_path: Path) -> None:
    tests = sorted({bug.test for bug in BUGS})
    done = pytest_of(copy_to(tmp_path), *tests)
    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr


def test_the_documented_table_lists_the_planted_bugs() -> None:
    table = "".join(f"| {b.what} | `{b.file}` | `{b.test.rpartition('::')[2]}` |\n" for b in BUGS)
    assert table in DECISION.read_text(), table
