"""Template sources at URLs that lead to what is not the spec author's to read."""

import pytest

from lago_images.building.bases import libguestfs
from lago_images.errors import BuildError
from lago_images.host.process import Runner
from lago_images.settings import TemplateSource
from tests.support.files import answering, serving

SECRET = b"export AWS_SECRET_ACCESS_KEY=hunter2\n"


def refused(url, tmp_path):
    with pytest.raises(BuildError) as caught:
        libguestfs.find(
            "tiny",
            "x86_64",
            (TemplateSource(url=url),),
            folder=tmp_path,
            environ={},
            runner=Runner(environ={}),
        )
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"
    return caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        SECRET,
        b"[" + SECRET + b"]\n",
        SECRET + b"\xff\xfe",
        b"[tiny]\narch=" + SECRET,
        b"[tiny]\narch=x86_64\nrevision=" + SECRET,
        b"{" + SECRET,
    ],
)
def test_the_content_of_an_invalid_index_is_not_shown(tmp_path, body):
    with serving({"/index": body}) as server:
        assert f"{server.url}/index" in refused(server.url + "/index", tmp_path)
        assert [path for path, _, _ in server.requests] == ["/index"]


def test_the_invalid_line_of_an_index_is_reported(tmp_path):
    with serving({"/index": b"# a comment\n" + SECRET}) as server:
        assert "not an index: line 2" in refused(server.url + "/index", tmp_path)


def test_an_index_may_not_be_redirected_to_another_host(tmp_path):
    with serving({"/index": SECRET}) as inside:

        def redirect(handler):
            handler.send_response(302)
            handler.send_header("Location", inside.url + "/index")
            handler.end_headers()

        with answering(redirect) as server:
            assert "redirects to another host" in refused(server.url + "/index", tmp_path)
        assert inside.requests == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/index", "gopher://127.0.0.1/", "/etc/passwd"])
def test_sources_of_other_schemes_are_refused(tmp_path, url):
    assert "not an http or https URL" in refused(url, tmp_path)
