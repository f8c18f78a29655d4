import hashlib
import json
import os

import pytest

from lago_images.building.boot.spec_tests import FailedTestsError
from lago_images.building.outcome import ended_tests, last_lines
from lago_images.errors import BootError, RepositoryError
from lago_images.jobs import results
from lago_images.repository.records.guest_tests import GuestTestRecord
from tests.support.builders import manifest
from tests.support.ci import built, failed


def test_written_results_are_read_back(tmp_path):
    written = [built("a"), failed("b"), failed("c", skipped="b", step="", error="", tail=())]
    results.write_folder(tmp_path / "job-1", written[:2])
    results.write_folder(tmp_path / "job-2", written[2:])
    assert results.read_folder(tmp_path) == written


def test_the_tests_that_failed_an_image_are_in_its_result(tmp_path):
    records = (
        GuestTestRecord(name="a.test", seconds=1.5, exit_code=0, output="one\ntwo"),
        GuestTestRecord(name="a.tests/b", problem="it took longer than 5 s"),
    )
    error = FailedTestsError("tests failed", records, tail=["two"])
    assert (ended_tests(error), last_lines(error)) == (records, ("two",))
    assert ended_tests(BootError("no boot")) == ()
    written = [failed("a", tests=ended_tests(error))]
    results.write_folder(tmp_path, written)
    assert results.read_folder(tmp_path) == written


def test_results_of_an_older_version_have_no_tests():
    plain = json.loads(results.dump([failed("a")]))
    del plain["results"][0]["tests"]
    [found] = results.load(json.dumps(plain).encode(), "r")
    assert found.tests == ()


def test_results_record_the_name_of_a_log_only(tmp_path):
    plain = json.loads(results.dump([failed(log=tmp_path / "x.log")]))
    assert plain["results"][0]["log"] == "x.log"
    plain["results"][0]["log"] = "../../etc/passwd"
    (found,) = results.load(json.dumps(plain).encode(), "r")
    assert str(found.log) == "passwd"


def test_a_missing_folder_has_no_results(tmp_path):
    assert results.read_folder(tmp_path / "none") == []


@pytest.mark.parametrize("order", [("1", "2"), ("2", "1")])
def test_the_successful_one_of_several_attempts_counts(tmp_path, order):
    first, second = (tmp_path / f"attempt-{number}" for number in order)
    results.write_folder(first, [failed("a"), failed("b"), built("c")])
    results.write_folder(second, [built("a"), failed("b"), built("c")])
    assert results.read_folder(tmp_path) == [built("a"), failed("b"), built("c")]


def test_two_builds_of_one_image_are_refused(tmp_path):
    results.write_folder(tmp_path, [built("a"), built("b")])
    other = built("a", manifest=manifest("a", "b3"))
    (tmp_path / "zzz.results.json").write_bytes(results.dump([other]))
    with pytest.raises(RepositoryError, match=r"a\.results\.json and zzz\.results\.json"):
        results.read_folder(tmp_path)


def test_a_link_in_place_of_a_result_is_replaced_and_not_followed(tmp_path):
    other = tmp_path / "other"
    other.write_text("theirs")
    (tmp_path / "a.results.json").symlink_to(other)
    results.write_folder(tmp_path, [built("a")])
    assert results.read_folder(tmp_path) == [built("a")]
    assert other.read_text() == "theirs"


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../x"},
        {"name": "a\nb"},
        {"name": 7},
        {"arch": "x/y"},
        {"seconds": -1},
        {"seconds": float("nan")},
        {"seconds": "soon"},
        {"tail": [1]},
        {"error": None},
        {"manifest": []},
        {"manifest": {}},
        {"extra": 1},
        {"seconds": 10**400},
        {"skipped": "\x00"},
        {"skipped": "a b"},
    ],
    ids=str,
)
def test_invalid_results_are_refused(change):
    plain = json.loads(results.dump([built()]))
    plain["results"][0].update(change)
    with pytest.raises(RepositoryError):
        results.load(json.dumps(plain).encode(), "job-1/x.results.json")


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("disk", {"compressed_size": "x"}),
        ("disk", {"compressed_size": 0}),
        ("boot", {"seconds": "x"}),
        ("boot", {"seconds": float("inf")}),
        ("boot", {"accel": 5}),
        ("base", {"ref": "\udcff"}),
    ],
    ids=str,
)
def test_invalid_manifests_in_results_are_refused(part, change):
    plain = json.loads(results.dump([built()]))
    plain["results"][0]["manifest"][part].update(change)
    with pytest.raises(RepositoryError, match=part):
        results.load(json.dumps(plain).encode(), "x")


def test_a_result_records_the_digest_of_its_manifest():
    made = built()
    plain = json.loads(results.dump([made]))
    entry = plain["results"][0]
    assert entry["manifest_sha256"] == hashlib.sha256(made.manifest.to_json()).hexdigest()
    entry["manifest"]["disk"]["sha256"] = "0" * 64
    with pytest.raises(RepositoryError, match="manifest_sha256 of debian-12 is not that of its"):
        results.load(json.dumps(plain).encode(), "x")
    (nothing,) = json.loads(results.dump([failed()]))["results"]
    assert nothing["manifest_sha256"] is None


@pytest.mark.parametrize("digest", [None, "", "0" * 63, "0" * 64, "Z" * 64])
def test_a_result_without_the_right_digest_is_refused(digest):
    plain = json.loads(results.dump([built()]))
    plain["results"][0]["manifest_sha256"] = digest
    with pytest.raises(RepositoryError, match="manifest_sha256"):
        results.load(json.dumps(plain).encode(), "x")


def test_a_manifest_of_another_image_is_refused():
    plain = json.loads(results.dump([built("a")]))
    plain["results"][0]["manifest"]["name"] = "b"
    with pytest.raises(RepositoryError, match="it is the manifest of builds/b/"):
        results.load(json.dumps(plain).encode(), "x")


def test_log_lines_that_are_not_utf_8_stay_readable():
    ended = failed("a", error="no \udcff", tail=("\udc80",))
    (found,) = results.load(results.dump([ended]), "x")
    assert (found.error, found.tail) == ("no \ufffd", ("\ufffd",))
    plain = json.loads(results.dump([failed("a")]))
    plain["results"][0]["step"] = "\udcff"
    (found,) = results.load(json.dumps(plain).encode(), "x")
    assert found.step == "\ufffd"


@pytest.mark.parametrize("field", ["name", "arch", "build_id"])
def test_a_manifest_cannot_name_another_folder(field):
    plain = json.loads(results.dump([built()]))
    plain["results"][0]["manifest"][field] = "../other"
    with pytest.raises(RepositoryError):
        results.load(json.dumps(plain).encode(), "x")


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b"\xff", b'{"schema": 2, "results": []}', b"[" * 200_000],
    ids=lambda data: ascii(data[:9]),
)
def test_a_document_of_another_kind_is_refused(data):
    with pytest.raises(RepositoryError):
        results.load(data, "x")


def test_the_end_of_a_very_long_log_line_is_kept():
    """What a job writes is read by others, and 8 MB of it were."""
    endless = failed("a", tail=("first", "x" * 8_000_000, *("━" * 2000 for _ in range(99))))
    data = results.dump([endless])
    assert len(data) < 64 * 1024
    [again] = results.load(data, "a.results.json")
    assert again.tail
    assert set(again.tail) == {"━" * 999 + "…"}
    [short] = results.load(results.dump([failed("a", tail=("x" * 8_000_000,))]), "a.results.json")
    assert short.tail == ("x" * 999 + "…",)


def test_a_folder_named_like_results_is_searched_and_not_read(tmp_path):
    """A fork's job keeps the build of a spec that is named so in such a folder."""
    folder = tmp_path / "repository/builds/x.results.json/x86_64/b1"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "pipe.results.json")
    assert results.read_folder(tmp_path) == []
