"""Downloads from a real server that fails the way servers do."""

import errno
import os
from dataclasses import replace

import pytest

from lago_images.building import downloads
from lago_images.building.downloads import ATTEMPTS, RETRY, Downloader
from lago_images.console import Console
from lago_images.errors import BuildError, HostError
from lago_images.host.http import Answer, Client
from tests.support.files import answering, serving

BODY = bytes(range(256)) * 20_000
MIB = 2**20


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def downloader(tmp_path, pauses):
    return Downloader(
        folder=tmp_path / "cache",
        console=Console(quiet=True),
        client=Client(environ={}),
        retry=replace(RETRY, jitter=0, sleep=pauses.append),
    )


@pytest.fixture
def server():
    with serving({"/disk": BODY}) as files:
        yield files


def test_a_file_is_downloaded_once(downloader, server):
    for _ in range(2):
        assert downloader.fetch(server.url + "/disk", "key").read_bytes() == BODY
    assert server.requests == [("/disk", None, 200)]


def test_a_dropped_connection_is_resumed_where_it_ended(downloader, server, pauses):
    server.cut = [MIB, 2 * MIB]
    assert downloader.fetch(server.url + "/disk", "key").read_bytes() == BODY
    assert [status for _, _, status in server.requests] == [200, 206, 206]
    assert server.requests[1][1] == f"bytes={MIB}-"
    assert pauses == [1.0, 2.0]


def test_the_next_run_resumes_a_partial_download(downloader, server):
    server.cut = [MIB, 0, 0, 0]
    what = f"failed 4 times, at last: it ended after {MIB} of {len(BODY)} bytes"
    with pytest.raises(BuildError, match=what) as caught:
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


def test_a_changed_file_is_downloaded_from_the_start(downloader, server):
    server.cut = [MIB, 0, 0, 0]
    with pytest.raises(BuildError):
        downloader.fetch(server.url + "/disk", "key")
    server.content["/disk"], server.etag = BODY[::-1], '"two"'
    assert downloader.fetch(server.url + "/disk", "key").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("etag", ['W/"weak"', ""])
def test_a_download_is_not_resumed_without_a_strong_validator(downloader, server, etag):
    server.etag, server.cut = etag, [MIB]
    assert downloader.fetch(server.url + "/disk", "key").read_bytes() == BODY
    assert [asked for _, asked, _ in server.requests] == [None, None]


def test_a_server_without_ranges_sends_the_whole_file_again(downloader, server):
    server.ranges, server.cut = False, [MIB]
    assert downloader.fetch(server.url + "/disk", "key").read_bytes() == BODY


def test_a_complete_partial_download_is_accepted(downloader, server):
    downloader.folder.mkdir()
    (downloader.folder / "key.part").write_bytes(BODY)
    (downloader.folder / "key.part.validator").write_text(server.etag)
    assert downloader.fetch(server.url + "/disk", "key").read_bytes() == BODY
    assert [status for _, _, status in server.requests] == [416, 200]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_error_is_retried(downloader, server, status):
    server.refuse = [status] * (ATTEMPTS - 1)
    assert downloader.fetch(server.url + "/disk", "key").read_bytes() == BODY


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_client_error_is_not_retried(downloader, server, status):
    server.refuse = [status]
    with pytest.raises(BuildError, match=f"the server answered {status}"):
        downloader.fetch(server.url + "/disk", "key")
    assert len(server.requests) == 1
    assert [p.name for p in downloader.folder.iterdir()] == ["key.lock"]


def test_an_unreachable_server_is_reported(downloader, server):
    gone = server.url.rpartition(":")[0] + ":1/disk"
    with pytest.raises(BuildError, match="refused"):
        downloader.fetch(gone, "key")


def test_only_http_and_https_urls_are_opened(downloader, tmp_path):
    (tmp_path / "secret").write_text("s")
    with pytest.raises(BuildError, match="not an http or https URL"):
        downloader.fetch(f"file://{tmp_path}/secret", "key")


def endless(handler):
    handler.send_response(200)
    handler.send_header("ETag", '"one"')
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(2**16))


def left_over(downloader):
    return [path.name for path in downloader.folder.iterdir()]


def test_an_endless_download_is_aborted_and_leaves_no_file(downloader):
    small = replace(downloader, largest=MIB)
    with answering(endless) as server, pytest.raises(BuildError, match="more than 1048576 bytes"):
        small.fetch(server.url + "/disk", "key")
    assert len(server.requests) == 1
    assert left_over(small) == ["key.lock"]


def test_a_resumed_part_counts_towards_the_size_limit(downloader, server):
    server.cut = [MIB, 0, 0, 0]
    with pytest.raises(BuildError, match="failed 4 times"):
        downloader.fetch(server.url + "/disk", "key")
    small = replace(downloader, largest=len(BODY) - 1)
    with pytest.raises(BuildError, match=f"more than {len(BODY) - 1} bytes"):
        small.fetch(server.url + "/disk", "key")
    assert left_over(small) == ["key.lock"]


def test_a_download_of_unknown_length_keeps_the_disk_space_reserve(downloader, monkeypatch):
    monkeypatch.setattr("lago_images.host.space.free", lambda _folder: 257 * MIB)
    with answering(endless) as server, pytest.raises(HostError, match="does not fit") as caught:
        downloader.fetch(server.url + "/disk", "key")
    assert "free some space" in (caught.value.hint or "")
    assert len(server.requests) == 1
    assert left_over(downloader) == ["key.lock"]


@pytest.mark.parametrize("full", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_reported_once_and_the_partial_file_removed(
    downloader, server, monkeypatch, full
):
    def fail(*_arguments, **_more):
        raise OSError(full, os.strerror(full))

    monkeypatch.setattr(Answer, "pieces", fail)
    with pytest.raises(HostError, match="does not fit"):
        downloader.fetch(server.url + "/disk", "key")
    assert len(server.requests) == 1
    assert left_over(downloader) == ["key.lock"]


def test_a_part_that_cannot_be_resumed_is_not_kept(downloader, server):
    server.etag, server.cut = "", [MIB, MIB, MIB, MIB]
    with pytest.raises(BuildError, match="failed 4 times") as caught:
        downloader.fetch(server.url + "/disk", "key")
    assert "goes on" not in (caught.value.hint or "")
    assert left_over(downloader) == ["key.lock"]


@pytest.mark.parametrize("host", ["127.0.0.1:1", "nothing.invalid"])
def test_a_url_that_no_server_is_found_at_is_to_be_checked(downloader, host):
    with pytest.raises(BuildError, match="failed 4 times") as caught:
        downloader.fetch(f"http://{host}/disk.qcow2", "key")
    assert caught.value.hint == f"check the URL: curl -I http://{host}/disk.qcow2"


def test_a_file_that_a_server_does_not_have_is_to_be_checked(downloader, server):
    with pytest.raises(BuildError, match="404 Not Found") as caught:
        downloader.fetch(server.url + "/mistyped", "key")
    assert caught.value.hint == f"check the URL: curl -I {server.url}/mistyped"


def test_retry_after_sets_the_pause_before_the_next_attempt(downloader, server, pauses):
    server.refuse, server.retry_after = [503, 429], "7"
    assert downloader.fetch(server.url + "/disk", "key").read_bytes() == BODY
    assert pauses == [7.0, 7.0]


def test_the_cache_keeps_the_files_used_last(tmp_path):
    for number, name in enumerate(("old", "older", "new", "now")):
        path = tmp_path / name
        path.write_bytes(bytes(10))
        os.utime(path, (number, 10 - number if name == "older" else 5 + number))
    downloads.prune(tmp_path, limit=25, keep=tmp_path / "now")
    assert {p.name for p in tmp_path.iterdir()} == {"new", "older", "now"}
