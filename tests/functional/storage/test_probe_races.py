"""The probe's races: real stores pass them, and stand-ins that break one promise each do not.

A stand-in keeps every condition of writes that come one after the other, so that nothing but a
race shows its fault.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition

import pytest

from lago_images.storage.s3.probe import probe
from lago_images.storage.s3.store import S3Store
from lago_images.storage.s3.verdict import Verdict
from tests.functional.storage.conftest import QUICK
from tests.servers.model import Server
from tests.support.server_threads import in_thread

# Seconds that a faulty store leaves between looking and writing.
_WINDOW = 0.1
# Seconds that it waits for the one request that its fault lets in: a busy machine is late with it.
_LONGEST = 3.0


class StandIn(ThreadingHTTPServer):
    """Objects in memory, with conditional writes and one fault; nothing else of S3 but HEAD."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.objects: dict[str, bytes] = {}
        self.lock = Condition()
        self.under_way = 0
        super().__init__(("127.0.0.1", 0), _Handler)

    def put(self, key: str, body: bytes, creates: bool, etag: str | None) -> int:
        """Write if the condition holds; return the status of the answer."""
        with self.lock:
            self.under_way += 1
        try:
            return self._put(key, body, creates, etag)
        finally:
            with self.lock:
                self.under_way -= 1

    def _put(self, key: str, body: bytes, creates: bool, etag: str | None) -> int:
        is_loose = {"creators": creates, "replacers": etag is not None}.get(self.fault, False)
        with self.lock:
            if not self._holds(key, creates, etag):
                if self.fault == "losers are written" and self.under_way > 1:
                    self.objects[key] = body
                    return 500
                return 412
            if self.fault == "deletes first" and etag is not None:
                del self.objects[key]
                self.lock.wait_for(lambda: key in self.objects, _LONGEST)
            elif not is_loose:
                self.objects[key] = body
                self.lock.notify_all()
                if self.fault != "losers are written":
                    return 200
        time.sleep(_WINDOW)
        if self.fault == "losers are written":
            return 200
        with self.lock:
            self.objects[key] = body
        return 200

    def _holds(self, key: str, creates: bool, etag: str | None) -> bool:
        now = self.objects.get(key)
        if creates:
            return now is None
        if etag is None:
            return True
        if now is None:
            return self.fault == "matches what is missing"
        return etag.strip('"') == etag_of(now)


def etag_of(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if "x-amz-copy-source" in self.headers:
            self._answer(501, b"")
            return
        creates = self.headers.get("If-None-Match") == "*"
        status = self.server.put(self.path, body, creates, self.headers.get("If-Match"))
        self._answer(status, b"", etag_of(body))

    def do_GET(self) -> None:
        body = self.server.objects.get(self.path)
        if body is None:
            self._answer(501, b"")
        else:
            self._answer(200, body, etag_of(body))

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        with self.server.lock:
            self.server.objects.pop(self.path, None)
        self._answer(204, b"")

    def _answer(self, status: int, body: bytes, etag: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        pass


@contextmanager
def probed(fault: str) -> Iterator[tuple[Verdict, StandIn]]:
    with StandIn(fault) as server, in_thread(server):
        environ = {
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_address[1]}",
        }
        yield probe(S3Store.open("images", environ=environ, retry=QUICK).bucket), server


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("creators", "simultaneous writers created the same object, each answered 200"),
        ("replacers", "simultaneous writers replaced the same version of an object"),
        ("deletes first", "If-None-Match: * on an object that others were replacing"),
        ("matches what is missing", "If-Match on a missing object was answered 200"),
        ("losers are written", "one was answered 200, and another's bytes were kept"),
    ],
)
def test_a_store_with_any_faulty_conditional_write_is_unsafe(fault: str, reason: str) -> None:
    with probed(fault) as (verdict, server):
        assert not verdict.is_safe
        assert any(reason in each for each in verdict.reasons), verdict.reasons
        assert server.objects == {}


def test_a_store_with_all_conditional_writes_is_safe() -> None:
    with probed("none") as (verdict, server):
        assert verdict.reasons == ()
        assert server.objects == {}


@pytest.mark.parametrize("name", ["ceph20", "ceph18", "moto"])
def test_a_real_store_passes_every_time(request: pytest.FixtureRequest, name: str) -> None:
    server: Server = request.getfixturevalue(name)
    store = S3Store.open(server.new_bucket(), "p", environ=server.environ, retry=QUICK)
    for _ in range(5):
        assert probe(store.bucket).reasons == ()
    # A few dozen small requests, whatever else the probe learns to ask.
    assert sum(store.requests.values()) < 5 * 110


def test_the_race_detects_versioning_on_ceph(ceph20: Server) -> None:
    """With versions it checks before it locks: of its writers in one round several win."""
    bucket = ceph20.new_bucket()
    status = {"Status": "Enabled"}
    ceph20.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration=status)
    store = S3Store.open(bucket, "p", environ=ceph20.environ, retry=QUICK)
    # A race shows itself by chance: on a machine that is busy enough, not in one probe.
    for _ in range(5):
        verdict = probe(store.bucket)
        assert verdict.is_versioned
        if not verdict.is_safe:
            break
    assert any("simultaneous writers" in each for each in verdict.reasons), verdict.reasons
