"""A private bucket, served: the gateway for clients that cannot sign requests."""

import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from lago_images.console import Console
from lago_images.repository.records import layout
from lago_images.repository.serving.server import Server
from lago_images.storage.s3.store import S3Store
from tests.support import builders
from tests.support.server_threads import in_thread

pytestmark = pytest.mark.real
DISK = builders.copy_of(builders.manifest("a", "1")).disk
DATA = bytes(range(256)) * 40_000


@pytest.fixture
def url(ceph20):
    store = S3Store.open(
        ceph20.new_bucket(), "some/prefix", environ=ceph20.environ, single_writer=False
    )
    store.upload(DISK, [DATA], headers=layout.headers(DISK))
    store.put("index", b"[a]\n", expected=None, headers=layout.headers("index"))
    store.put("state/published.json", b"{}", expected=None)
    builders.put_release(store, builders.release(1, "1", name="a"))
    with Server(store, Console(quiet=True), bind="127.0.0.1", port=0) as server, in_thread(server):
        yield server.url


def get(url, **headers):
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.headers, response.read()


def test_a_bucket_is_served_like_a_directory(url):
    headers, body = get(f"{url}/{DISK}")
    assert body == DATA
    assert headers["Content-Length"] == str(len(DATA))
    assert headers["Content-Type"] == "application/x-xz"
    assert "immutable" in headers["Cache-Control"]
    assert get(f"{url}/index")[1] == b"[a]\n"
    part, body = get(f"{url}/{DISK}", Range="bytes=1000-1999")
    assert body == DATA[1000:2000]
    assert part["Content-Range"] == f"bytes 1000-1999/{len(DATA)}"


@pytest.mark.parametrize(
    "path", ["state/published.json", "nothing", "", "images/a", "builds/a/x86_64/1/a.qcow2.xz"]
)
def test_unpublished_objects_are_answered_404(url, path):
    with pytest.raises(urllib.error.HTTPError) as raised:
        get(f"{url}/{path}")
    with raised.value as answer:
        assert answer.code == 404


def test_many_concurrent_clients_are_served(url):
    with ThreadPoolExecutor(12) as pool:
        got = list(pool.map(lambda _: get(f"{url}/{DISK}")[1] == DATA, range(24)))
    assert all(got)
