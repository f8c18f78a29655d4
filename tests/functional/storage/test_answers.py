"""Servers behind an S3 endpoint's address that are no S3: one line for the user, no traceback."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lago_images.console import Console
from lago_images.errors import StorageError
from lago_images.host.retry import RetryPolicy
from lago_images.storage.s3.store import S3Store
from lago_images.storage.s3.upload import Uploader
from tests.support.loopback import LoopbackServer, QuietHandler
from tests.support.server_threads import in_thread

WORK = {
    "list": lambda store, _: list(store.list()),
    "head": lambda store, _: store.head("k"),
    "get": lambda store, _: store.get("k"),
    "read": lambda store, _: list(store.read("k")),
    "download": lambda store, folder: store.download("k", folder / "file"),
    "put": lambda store, _: store.put("k", b"", expected=None),
    "upload": lambda store, _: store.upload("k", [b"bytes"]),
    "parts": lambda store, _: store.upload("k", [b"more than one part"]),
    "delete": lambda store, _: store.delete(["k"]),
    "unfinished": lambda store, _: list(store.unfinished()),
    "probe": lambda store, _: store.ensure_safe_writes(
        single_writer=False, console=Console(quiet=True)
    ),
}


@contextmanager
def answering(status: int, headers: dict[str, str], body: bytes = b"") -> Iterator[str]:
    """A server that gives one answer to everything; its URL."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            self.read_body()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    with LoopbackServer(Handler) as server, in_thread(server):
        yield server.url


def failure(
    endpoint: str, work: str, folder: Path, sleep: Callable[[float], None] = time.sleep
) -> StorageError:
    environ = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_ENDPOINT_URL_S3": endpoint,
    }
    quick = RetryPolicy(attempts=2, delay=0.001, longest=0.001, sleep=sleep)
    store = S3Store.open("images", "p", environ=environ, retry=quick)
    store.uploader = Uploader(bucket=store.bucket, part_size=10)
    with pytest.raises(StorageError) as caught:
        WORK[work](store, folder)
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_reported_with_its_target(tmp_path, status, work):
    with answering(status, {"Location": "https://s3.example.org/images/k"}) as endpoint:
        error = failure(endpoint, work, tmp_path)
    assert str(status) in error.message
    assert "redirects to https://s3.example.org/images/k" in (error.hint or "")


# urllib3 stumbles before anybody has the connection to close it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("work", WORK)
def test_an_unexpected_redirect_is_reported_as_a_bad_answer(tmp_path, work):
    with answering(303, {"Location": "https://s3.example.org/"}) as endpoint:
        error = failure(endpoint, work, tmp_path)
    assert "cannot be understood" in error.message
    del error
    gc.collect()


@pytest.mark.parametrize("work", ["get", "put", "parts"])
def test_retry_after_sets_the_pause_before_the_next_request(tmp_path, work):
    pauses = []
    with answering(503, {"Retry-After": "9"}) as endpoint:
        failure(endpoint, work, tmp_path, sleep=pauses.append)
    assert pauses
    assert set(pauses) == {9.0}


@pytest.mark.parametrize("work", ["list", "head", "get", "read", "download", "put", "parts"])
def test_an_html_answer_is_an_error_that_does_not_show_it(tmp_path, work):
    page = b"<html><body>It works!"
    with answering(200, {"Content-Type": "text/html"}, page) as endpoint:
        error = failure(endpoint, work, tmp_path)
    assert "It works" not in error.message
