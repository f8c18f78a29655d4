"""The server over a real directory repository, asked by real sockets."""

import contextlib
import errno
import gzip
import http.client
import io
import itertools
import json
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from lago_images.console import Console
from lago_images.errors import Error
from lago_images.repository.records import layout
from lago_images.repository.serving.server import Server
from lago_images.storage.directory.store import DirectoryStore
from tests.clients.serving import serving
from tests.support import builders
from tests.support.schemas import validator
from tests.support.server_threads import in_thread
from tests.support.specs import SpecsRepo
from tests.tools import need

COPY = builders.copy_of(builders.manifest("a", "1"))
DISK = COPY.disk
DATA = bytes(range(256)) * 4096
META = {"name": "images", "sources": {}, "templates": {"a": {"versions": {}}}}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "repo"
    folder.mkdir()
    store = DirectoryStore(path=folder)
    store.upload(DISK, [DATA], headers=layout.headers(DISK))
    store.put("index", b"[a]\n", expected=None)
    store.put("repo.metadata", json.dumps(META).encode(), expected=None)
    store.put("state/published.json", b"{}", expected=None)
    builders.put_release(store, builders.release(1, "1", name="a"))
    (folder / ".hidden").write_text("secret")
    (folder / "lago-images.toml").write_text("secret")
    return folder


@pytest.fixture
def log():
    return io.StringIO()


@pytest.fixture
def server(folder, log):
    opened = Server(DirectoryStore(path=folder), Console(stream=log), bind="127.0.0.1", port=0)
    with opened as server, in_thread(server):
        yield server


@pytest.fixture
def ask(server):
    connections = []

    def ask(method, path, **headers):
        host, port = server.server_address[:2]
        connection = http.client.HTTPConnection(host, port, timeout=120)
        connections.append(connection)
        connection.request(
            method, path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        response = connection.getresponse()
        return response, response.read()

    yield ask
    for connection in connections:
        connection.close()


def test_a_disk_is_served_whole_with_the_headers_of_the_layout(ask):
    response, body = ask("GET", f"/{DISK}")
    assert (response.status, body) == (200, DATA)
    assert response.headers["Content-Length"] == str(len(DATA))
    assert response.headers["Content-Type"] == "application/x-xz"
    assert "immutable" in response.headers["Cache-Control"]
    assert response.headers["Accept-Ranges"] == "bytes"


def test_rendered_files_have_a_short_cache_lifetime(ask):
    response, body = ask("GET", "/index")
    assert (response.status, body) == (200, b"[a]\n")
    assert "must-revalidate" in response.headers["Cache-Control"]


def test_head_has_the_headers_of_get_and_no_body(ask):
    whole, _ = ask("GET", f"/{DISK}")
    head, body = ask("HEAD", f"/{DISK}")
    assert (head.status, body) == (200, b"")
    for name in ("Content-Length", "Content-Type", "Cache-Control", "ETag", "Last-Modified"):
        assert head.headers[name] == whole.headers[name]


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [("bytes=0-0", 0, 1), ("bytes=100-", 100, len(DATA)), ("bytes=-7", len(DATA) - 7, len(DATA))],
)
def test_an_interrupted_download_can_be_resumed(ask, asked, first, end):
    response, body = ask("GET", f"/{DISK}", Range=asked)
    assert (response.status, body) == (206, DATA[first:end])
    assert response.headers["Content-Range"] == f"bytes {first}-{end - 1}/{len(DATA)}"


def test_a_range_behind_the_end_is_refused(ask):
    response, _ = ask("GET", f"/{DISK}", Range=f"bytes={len(DATA)}-")
    assert response.status == 416
    assert response.headers["Content-Range"] == f"bytes */{len(DATA)}"


def test_a_range_of_a_changed_object_returns_the_whole(ask):
    response, body = ask("GET", f"/{DISK}", Range="bytes=5-9", If_Range='"older"')
    assert (response.status, body) == (200, DATA)


def test_an_unchanged_object_is_answered_304(ask):
    etag = ask("GET", "/index")[0].headers["ETag"]
    response, body = ask("GET", "/index", If_None_Match=etag)
    assert (response.status, body) == (304, b"")


PAGES = {
    "index.html": b"<!doctype html>" + b"<li>an image</li>" * 500,
    "catalogue/a.html": b"<!doctype html>" + b"<li>a record</li>" * 500,
    "catalogue/a.xml": b"<feed>" + b"<entry/>" * 500,
    "feed.xml": b"<feed>" + b"<entry/>" * 500,
    "images.json": b"[" + b"1, " * 500 + b"1]",
    "latest/a.x86_64.json": b"[" + b"1, " * 500 + b"1]",
}


@pytest.fixture
def pages(folder):
    for key, data in PAGES.items():
        DirectoryStore(path=folder).put(key, data, expected=None)
    return PAGES


def curl(server, path, *options):
    argv = ["curl", "-sS", "--fail", *options, f"{server.url}/{path}"]
    return subprocess.run(argv, capture_output=True, timeout=120, check=True).stdout


def headers_of(server, path, *options):
    shown = curl(server, path, "--output", "/dev/null", "--dump-header", "-", *options).decode()
    lines = (line.partition(": ") for line in shown.splitlines()[1:] if line)
    return {name.lower(): value for name, _, value in lines}


@pytest.mark.parametrize("path", PAGES)
def test_who_asks_for_gzip_gets_pages_and_documents_compressed(server, pages, path):
    need("curl")
    assert curl(server, path, "--compressed") == pages[path]
    assert curl(server, path) == pages[path]
    packed = curl(server, path, "--header", "Accept-Encoding: br, gzip;q=0.5")
    assert gzip.decompress(packed) == pages[path]
    plain, got = headers_of(server, path), headers_of(server, path, "--compressed")
    for headers, length in ((plain, len(pages[path])), (got, len(packed))):
        assert (headers["vary"], headers["content-length"]) == ("Accept-Encoding", str(length))
        assert headers["content-type"] == layout.headers(path).content_type
        assert headers["cache-control"] == layout.headers(path).cache_control
    assert (got["content-encoding"], got["accept-ranges"]) == ("gzip", "none")
    assert ("content-encoding" in plain, plain["accept-ranges"]) == (False, "bytes")
    assert got["etag"] == f"W/{plain['etag']}"
    assert headers_of(server, path, "--compressed", "--head") == got


@pytest.mark.parametrize(
    "path", ["index", "repo.metadata", "SHA256SUMS", DISK, f"{COPY.folder}manifest.json"]
)
def test_what_clients_check_byte_by_byte_is_never_compressed(server, folder, path):
    need("curl")
    with contextlib.suppress(Error):
        DirectoryStore(path=folder).put(path, b"[]\n" * 500, expected=None)
    headers = headers_of(server, path, "--compressed")
    assert headers.keys().isdisjoint({"content-encoding", "vary"})
    whole = (folder / path).read_bytes()
    assert headers["content-length"] == str(len(whole))
    assert curl(server, path, "--compressed") == whole


@pytest.mark.parametrize("accepted", ["gzip;q=0", "*, gzip; q=0.000", "identity", "br, *;q=0", ""])
def test_who_refuses_gzip_gets_the_plain_page(ask, pages, accepted):
    response, body = ask("GET", "/index.html", Accept_Encoding=accepted)
    assert (response.headers["Content-Encoding"], body) == (None, pages["index.html"])
    assert response.headers["Vary"] == "Accept-Encoding"


def test_an_unchanged_page_is_answered_304_in_either_form(ask, pages):
    etags = [ask("GET", "/index.html", Accept_Encoding=each)[0].headers["ETag"]
             for each in ("gzip", "identity")]  # fmt: skip
    for etag, accepted in itertools.product(etags, ("gzip", "identity")):
        response, body = ask(
            "GET", "/index.html", Accept_Encoding=accepted, If_None_Match=f'"x", {etag}'
        )
        assert (response.status, body) == (304, b"")
        assert response.headers["Vary"] == "Accept-Encoding"
        assert response.headers["ETag"] == etags[accepted == "identity"]


def test_a_range_of_a_page_is_one_of_its_plain_bytes(ask, pages):
    page, packed = pages["index.html"], ask("GET", "/index.html", Accept_Encoding="gzip")[0]
    response, body = ask("GET", "/index.html", Accept_Encoding="gzip", Range="bytes=5-9")
    assert (response.status, body) == (206, page[5:10])
    assert response.headers["Content-Encoding"] is None
    # What was compressed cannot be gone on with: the client gets the whole.
    response, body = ask(
        "GET", "/index.html", Accept_Encoding="gzip", Range="bytes=5-9",
        If_Range=packed.headers["ETag"],
    )  # fmt: skip
    assert (response.status, body) == (200, page)


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/builds",
        "/images/",
        "/images/a/",
        "/images/a/x86_64/1",
        "/state/published.json",
        "/.hidden",
        "/lago-images.toml",
        "/../repo/index",
        "/images/../lago-images.toml",
        "/images/%2e%2e/lago-images.toml",
        "/",
    ],
)
def test_only_published_files_are_served_and_nothing_is_listed(ask, path):
    response, body = ask("GET", path)
    assert response.status == 404
    assert b"secret" not in body
    assert b"x86_64" not in body


def test_methods_other_than_get_and_head_are_refused(ask):
    response, _ = ask("PUT", "/index")
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")
    assert ask("DELETE", "/index")[0].status == 405


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 45\r\n\r\nGET /index HTTP/1.1\r\nHost: x\r\nX-Padding: 12\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n",
        b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nGET /",
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_a_request_with_a_body_gets_one_answer_and_closes_the_connection(server, framing):
    """Else a proxy in front takes the second answer for that of another client's request."""
    with socket.create_connection(server.server_address[:2], timeout=120) as client:
        client.sendall(b"GET /index HTTP/1.1\r\nHost: x\r\n" + framing)
        answers = b"".join(iter(lambda: client.recv(65536), b""))
    assert answers.count(b"HTTP/1.") == 1
    assert answers.split()[1] in {b"413", b"400"}


def test_an_unreleased_build_is_not_served(folder, ask):
    store = DirectoryStore(path=folder)
    made = builders.manifest("a", "2")
    staged = made.key.staging.disk
    store.upload(staged, [DATA], headers=layout.headers(staged))
    key = builders.copy_of(made).disk
    store.upload(key, [DATA], headers=layout.headers(key))
    assert ask("GET", f"/{key}")[0].status == 404
    builders.put_release(store, builders.release(2, "2", name="a"))
    response, body = ask("GET", f"/{key}")
    assert (response.status, body) == (200, DATA)
    # What was staged is believed by nobody, whatever became of it.
    assert ask("GET", f"/{staged}")[0].status == 404


def test_a_damaged_release_neither_releases_nor_hides_a_build(folder, ask):
    store = DirectoryStore(path=folder)
    store.put("releases/a/x86_64/2.json", b"{", expected=None)
    copy = builders.copy_of(builders.manifest("a", "2"))
    store.upload(copy.disk, [DATA], headers=layout.headers(copy.disk))
    assert ask("GET", f"/{copy.disk}")[0].status == 404
    assert ask("GET", f"/{DISK}")[0].status == 200


def test_a_page_written_by_a_builder_is_not_served(folder, ask):
    page = COPY.folder + "evil.html"
    DirectoryStore(path=folder).put(page, b"<script>alert(1)</script>", expected=None)
    response, _ = ask("GET", f"/{page}")
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_silent_connections_do_not_block_the_server(folder, monkeypatch):
    """More of them than there are descriptors."""
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 4096))
    store = DirectoryStore(path=folder)
    server = Server(store, Console(quiet=True), bind="127.0.0.1", port=0, idle=1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(server)
        stack.enter_context(in_thread(server))
        for _ in range(258):
            stack.enter_context(socket.create_connection(server.server_address[:2]))
        host, port = server.server_address[:2]
        client = http.client.HTTPConnection(host, port, timeout=120)
        stack.callback(client.close)
        client.request("GET", "/index")
        assert client.getresponse().read() == b"[a]\n"


def test_many_concurrent_clients_get_their_own_objects(ask):
    with ThreadPoolExecutor(16) as pool:
        starts = range(0, len(DATA), len(DATA) // 64)
        got = pool.map(
            lambda start: ask("GET", f"/{DISK}", Range=f"bytes={start}-{start + 999}"), starts
        )
        for start, (response, body) in zip(starts, got, strict=True):
            assert response.status == 206
            assert body == DATA[start : start + 1000]


def test_a_client_that_hangs_up_is_no_error(server, log, ask):
    for _ in range(5):
        with socket.create_connection(server.server_address[:2]) as rude:
            rude.sendall(f"GET /{DISK} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            rude.recv(10)
            # Reset instead of an orderly end.
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert ask("GET", "/index")[0].status == 200
    assert "error" not in log.getvalue()
    assert "Traceback" not in log.getvalue()


def test_shutdown_works_after_the_last_answer_and_twice(folder):
    server = Server(DirectoryStore(path=folder), Console(quiet=True), bind="127.0.0.1", port=0)
    with server:
        with (
            in_thread(server),
            socket.create_connection(server.server_address[:2]) as client,
        ):
            client.sendall(b"GET /index HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(8).startswith(b"HTTP/1.1")
        server.shutdown()


def test_a_failing_store_is_answered_502_and_not_404(folder, log, ask):
    (folder / "index").unlink()
    (folder / "index").symlink_to("index")
    assert ask("GET", "/index")[0].status == 502
    assert "error" in log.getvalue()


def test_a_port_in_use_is_reported(folder, server):
    with pytest.raises(Error, match="cannot serve at") as raised:
        Server(
            DirectoryStore(path=folder), Console(), bind="127.0.0.1", port=server.server_address[1]
        )
    assert "choose another --port" in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("bind", "hint"),
    # RFC 5737 keeps these addresses for documents, RFC 6761 the name for what does not exist.
    [("192.0.2.1", "no address of this machine"), ("nothing.invalid", "no such host is known")],
)
def test_the_hint_fits_an_address_that_cannot_be_served_at(folder, bind, hint):
    with pytest.raises(Error, match="cannot serve at") as raised:
        Server(DirectoryStore(path=folder), Console(), bind=bind, port=0)
    assert hint in (raised.value.hint or "")
    assert "--port" not in (raised.value.hint or "")


def test_the_hint_names_ports_that_are_for_root(folder, monkeypatch):
    def refuse(_self, _address):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("lago_images.repository.serving.server.socket.socket.bind", refuse)
    with pytest.raises(Error, match="cannot serve at") as raised:
        Server(DirectoryStore(path=folder), Console(), bind="127.0.0.1", port=80)
    assert "below 1024" in (raised.value.hint or "")


def test_serve_prints_client_commands_and_ends_with_ctrl_c(folder, tmp_path):
    with serving(folder, tmp_path / "log") as server:
        assert any(f"--source {server.url}/index" in line for line in server.lines)
        assert any(f"{server.url}/repo.metadata" in line for line in server.lines)
    assert server.process.returncode == 0
    assert "Traceback" not in server.log.read_text()


def test_serve_prints_one_document_when_it_takes_requests(folder):
    argv = [sys.executable, "-m", "lago_images", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(
        [*argv, "--format", "json"], stdout=subprocess.PIPE, text=True
    ) as process:
        lines = list(itertools.takewhile(lambda line: line != "}\n", process.stdout))
        served = json.loads("".join(lines) + "}")
        address = urlsplit(served["url"])
        client = http.client.HTTPConnection(address.hostname, address.port, timeout=120)
        client.request("GET", "/index")
        assert client.getresponse().read() == b"[a]\n"
        client.close()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == ""
    assert process.returncode == 0
    assert not list(validator("served").iter_errors(served))
    assert (served["name"], served["repository"]) == ("images", str(folder))
    assert [each["title"] for each in served["use"]] == ["virt-builder", "lago"]


def test_serve_says_how_clients_are_led_here(tmp_path):
    """What is published needs no build for that."""
    need("git", "qemu-img")
    repo = SpecsRepo.with_one(tmp_path / "specs")
    assert repo.run("build").code == 0
    argv = [sys.executable, "-m", "lago_images", "serve", "--port", "0"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, cwd=repo.root) as process:
        told = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert "repo.metadata sends lago to http://127.0.0.1:8181 for disks, not to " in told
    assert told.endswith(
        "if clients are to come here: set base-url in lago-images.toml, then: "
        "lago-images repo refresh\n"
    )
    [url] = re.findall(r"not to (http\S+);", told)
    repo.write("lago-images.toml", f'base-url = "{url}"\n')
    assert repo.run("repo", "refresh").code == 0
    assert url in (repo.root / "image-repo/repo.metadata").read_text()


def test_serve_in_an_empty_folder_names_what_makes_specs(tmp_path):
    argv = [sys.executable, "-m", "lago_images", "serve"]

    def told(*folder):
        done = subprocess.run(
            [*argv, *folder], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert f"error: there is no folder {tmp_path}/" in done.stderr
        return done.stderr

    assert "hint: there are no specs here: lago-images init makes an example" in told()
    # Who named a folder may have mistyped it.
    assert "hint: name that of a repository" in told("image-rep")
    (tmp_path / "image-specs").mkdir()
    assert "hint: name that of a repository; lago-images build makes one" in told()


def test_serve_refuses_an_empty_repository(tmp_path):
    argv = [sys.executable, "-m", "lago_images", "serve", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "nothing was published there" in done.stderr
    assert f"--repository {tmp_path} build publishes to one" in done.stderr
    assert "bucket" not in done.stderr
    assert done.stdout == ""


def test_serve_names_the_way_of_another_programs_images(tmp_path):
    (tmp_path / "index").write_text("[fedora]\nname=Fedora\nfile=fedora.xz\n")
    argv = [sys.executable, "-m", "lago_images", "serve", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "it has an index of another program" in done.stderr
    assert "docs/moving.md" in done.stderr
