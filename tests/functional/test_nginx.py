"""A directory behind nginx, by the lines of operations.md: what clients and browsers get."""

import gzip
import re
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from lago_images.cli.main import main
from lago_images.repository.rendering.signing import Signer
from lago_images.storage.directory.store import DirectoryStore
from tests.functional.test_verify import fill
from tests.servers import fetch
from tests.servers.processes import Processes, free_port
from tests.support.builders import SITE, publisher

PAGE = Path(__file__).parents[2] / "docs/operations.md"
# With what Debian's nginx.conf has for every site; no master, which could outlive the tests.
CONFIGURATION = """\
daemon off;
master_process off;
pid {folder}/pid;
events {{}}
http {{
    include {installed}/etc/nginx/mime.types;
    default_type application/octet-stream;
    sendfile on;
    gzip on;
    access_log off;
    {temporary}
    server {{
        listen 127.0.0.1:{port};
        root {root};
        index index.html;
{lines}
    }}
}}
"""


BUILDERS_OWN = ("state/published.json", "builds/a/log")


def documented():
    """The lines that the page has for nginx."""
    block = re.search(r"; for nginx:\n\n((?: {4}.*\n)+)", PAGE.read_text())
    assert block
    return block[1]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nginx")
    installed, port, root = fetch.nginx(), free_port(), folder / "repository"
    url = f"http://127.0.0.1:{port}"
    store = DirectoryStore(path=root)
    fill(store)
    publisher(store, signer=Signer(), site=replace(SITE, base_url=url)).refresh()
    for path in BUILDERS_OWN:
        store.put(path, b"{}", expected=None)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    text = CONFIGURATION.format(
        folder=folder,
        installed=installed,
        port=port,
        root=root,
        temporary=temporary,
        lines=documented(),
    )
    (folder / "nginx.conf").write_text(text)
    servers = Processes(log=folder / "log")
    program = f"{installed}/usr/sbin/nginx"
    servers.start([program, "-c", f"{folder}/nginx.conf", "-e", f"{folder}/errors"])
    try:
        servers.wait_for(url)
        yield url
    finally:
        servers.stop()


def ask(url):
    """The headers and body for who can read gzip, as browsers and virt-builder's curl do."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers, answer.read()


def of_disk(url):
    index = ask(f"{url}/index")[1].decode()
    return f"{url}/{re.search(r'^file=(.+)$', index, re.MULTILINE)[1]}"


def test_what_is_written_once_is_kept_for_ever_and_comes_as_it_is(url):
    headers, body = ask(of_disk(url))
    assert headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert headers["Content-Length"] == str(len(body))
    assert headers["Content-Encoding"] is None


@pytest.mark.parametrize("name", ["index", "repo.metadata", "SHA256SUMS"])
def test_what_clients_check_byte_by_byte_is_fresh_and_comes_as_it_is(url, name):
    headers, body = ask(f"{url}/{name}")
    assert headers["Cache-Control"] == "public, max-age=60, must-revalidate"
    assert headers["Content-Length"] == str(len(body))
    assert headers["Content-Encoding"] is None


@pytest.mark.parametrize("name", ["", "index.html", "feed.xml", "images.json"])
def test_pages_feeds_and_documents_travel_compressed(url, name):
    headers, body = ask(f"{url}/{name}")
    assert headers["Cache-Control"] == "public, max-age=60, must-revalidate"
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Vary"] == "Accept-Encoding"
    assert gzip.decompress(body).lstrip()[:1] in b"<{"


def test_what_is_nobodys_business_is_not_there(url):
    for path in BUILDERS_OWN:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}/{path}", timeout=60)
        refused.value.close()
        assert refused.value.code == 404


def test_verify_finds_nothing_wrong_from_just_the_url(url):
    done = CliRunner().invoke(main, ["repo", "verify", "--deep", url])
    assert done.exit_code == 0, done.output
