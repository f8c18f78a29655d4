"""Downloads from a real server that fails the way servers do."""

import pytest

from lago_images.building import cache
from lago_images.building.download import ATTEMPTS, Downloader
from lago_images.console import Console
from lago_images.errors import BuildError
from tests.support.files import serving

BODY = bytes(range(256)) * 20_000
MIB = 2**20


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def downloader(tmp_path, pauses):
    return Downloader(folder=tmp_path / "cache", console=Console(quiet=True), pause=pauses.append)


@pytest.fixture
def server():
    with serving({"/disk": BODY}) as files:
        yield files


def test_a_file_is_downloaded_once(downloader, server):
    for _ in range(2):
        assert downloader.fetch(server.url + "/disk", "key").read_bytes() == BODY
    assert server.requests == [("/disk", None, 200)]


def test_a_dropped_connection_is_taken_up_where_it_ended(downloader, server, pauses):
    server.cut = [MIB, 2 * MIB]
    assert downloader.fetch(server.url + "/disk", "key").read_bytes() == BODY
    assert [status for _, _, status in server.requests] == [200, 206, 206]
    assert server.requests[1][1] == f"bytes={MIB}-"
    assert pauses == [1.0, 2.0]


def test_what_one_run_got_the_next_goes_on_with(downloader, server):
    server.cut = [MIB, 0, 0, 0]
    with pytest.raises(BuildError, match="failed 4 times") as caught:
        downloader.fetch(server.url + "/disk", "key")
    assert "goes on where it ended" in (caught.value.hint or "")
    assert sorted(p.name for p in downloader.folder.iterdir()) == [
        "key.lock",
        "key.part",
        "key.part.validator",
    ]
    server.requests.clear()
    assert downloader.fetch(server.url + "/disk", "key").read_bytes() == BODY
    assert server.requests == [("/disk", f"bytes={MIB}-", 206)]


def test_a_file_that_changed_meanwhile_comes_from_the_start(downloader, server):
    server.cut = [MIB, 0, 0, 0]
    with pytest.raises(BuildError):
        downloader.fetch(server.url + "/disk", "key")
    server.content["/disk"], server.etag = BODY[::-1], '"two"'
    assert downloader.fetch(server.url + "/disk", "key").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("etag", ['W/"weak"', ""])
def test_without_a_strong_validator_nothing_is_pieced_together(downloader, server, etag):
    server.etag, server.cut = etag, [MIB]
    assert downloader.fetch(server.url + "/disk", "key").read_bytes() == BODY
    assert [asked for _, asked, _ in server.requests] == [None, None]


def test_a_server_without_ranges_is_asked_for_all_again(downloader, server):
    server.ranges, server.cut = False, [MIB]
    assert downloader.fetch(server.url + "/disk", "key").read_bytes() == BODY


def test_a_part_that_is_whole_already_is_no_dead_end(downloader, server):
    downloader.folder.mkdir()
    (downloader.folder / "key.part").write_bytes(BODY)
    (downloader.folder / "key.part.validator").write_text(server.etag)
    assert downloader.fetch(server.url + "/disk", "key").read_bytes() == BODY
    assert [status for _, _, status in server.requests] == [416, 200]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_in_trouble_is_asked_again(downloader, server, status):
    server.refuse = [status] * (ATTEMPTS - 1)
    assert downloader.fetch(server.url + "/disk", "key").read_bytes() == BODY


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_plain_no_is_an_answer(downloader, server, status):
    server.refuse = [status]
    with pytest.raises(BuildError, match=f"the server answered {status}"):
        downloader.fetch(server.url + "/disk", "key")
    assert len(server.requests) == 1
    assert [p.name for p in downloader.folder.iterdir()] == ["key.lock"]


def test_nobody_there(downloader, server):
    gone = server.url.rpartition(":")[0] + ":1/disk"
    with pytest.raises(BuildError, match="refused"):
        downloader.fetch(gone, "key")


def test_other_schemes_are_not_opened(downloader, tmp_path):
    (tmp_path / "secret").write_text("s")
    with pytest.raises(BuildError, match="not an http or https URL"):
        downloader.fetch(f"file://{tmp_path}/secret", "key")


def test_the_cache_keeps_what_was_used_last(tmp_path):
    for number, name in enumerate(("old", "older", "new", "now")):
        path = tmp_path / name
        path.write_bytes(bytes(10))
        cache.os.utime(path, (number, 10 - number if name == "older" else 5 + number))
    cache.prune(tmp_path, limit=25, keep=tmp_path / "now")
    assert {p.name for p in tmp_path.iterdir()} == {"new", "older", "now"}
