"""The door to HTTP, before real servers that do what servers do to those who trust them."""

import pytest

from lago_images.errors import UsageError
from lago_images.host.http import Client, CutOffError, HttpError, Limits, TooLargeError, again
from tests.support.files import answering, serving

SECRET = "export AWS_SECRET_ACCESS_KEY=hunter2"
LIMITS = Limits(size=1000, connect=5, read=5)


def read(url, limits=LIMITS, environ=None, **more):
    with Client(environ=environ or {}, **more).open(url, f"reading {url}", limits) as answer:
        return answer.read()


def failure(url, limits=LIMITS, environ=None, **more):
    with pytest.raises(HttpError) as caught:
        read(url, limits, environ, **more)
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"
    return caught.value


def redirecting(location, status=302):
    def answer(handler):
        handler.send_response(status)
        handler.send_header("Location", location)
        handler.end_headers()
        handler.wfile.write(SECRET.encode())

    return answering(answer)


def raw(data):
    """A server that sends these bytes and closes."""
    return answering(lambda handler: handler.wfile.write(data))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status):
    with serving({"/there": b"yes"}) as there, redirecting(there.url + "/there", status) as here:
        assert read(here.url + "/here") == b"yes"
        assert [path for path, _, _ in there.requests] == ["/there"]


def test_redirects_on_the_same_host_are_followed_where_others_are_refused():
    def answer(handler):
        if handler.path == "/there":
            handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\nyes")
            return
        handler.send_response(302)
        handler.send_header("Location", "there")
        handler.end_headers()

    with answering(answer) as server:
        assert read(server.url + "/here", Limits(size=9, same_host_only=True)) == b"yes"


def test_redirects_to_another_host_or_port_are_refused_where_not_allowed():
    limits = Limits(size=1000, same_host_only=True)
    with serving({"/there": SECRET.encode()}) as there:
        elsewhere = (there.url, there.url.replace("127.0.0.1", "localhost"))
        for url in elsewhere:
            with redirecting(url + "/there") as here:
                error = failure(here.url + "/here", limits)
                assert "redirects to another host" in error.message
                assert again(error) is None
        assert there.requests == []


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x", "//", "http://[x/", ""]
)
def test_redirects_to_other_schemes_or_without_a_location_are_refused(location):
    with redirecting(location) as server:
        error = failure(server.url + "/here")
    assert again(error) is None
    assert "root:" not in error.message


def test_endless_redirects_are_refused():
    with redirecting("/again") as server:
        assert "redirects more than 5 times" in failure(server.url + "/again").message
        assert len(server.requests) == 6


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://h/x", "/etc/passwd", "http://", "http://u:p@h/", "http://h:x/"],
)
def test_urls_other_than_plain_http_are_refused(url):
    assert again(failure(url)) is None


@pytest.mark.parametrize("length", ["Content-Length: 1001\r\n", ""])
def test_a_body_larger_than_the_limit_is_refused(length):
    body = (b"HTTP/1.0 200 OK\r\n" + length.encode() + b"\r\n").ljust(2000, b"x")
    with raw(body) as server:
        error = failure(server.url)
    assert isinstance(error, TooLargeError)
    assert again(error) is None


def test_the_connection_of_an_endless_body_is_closed():
    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(1000))

    with answering(answer) as server:
        assert isinstance(failure(server.url), TooLargeError)


def test_a_request_over_the_total_time_limit_fails():
    seconds = iter(range(0, 1000, 40))
    with raw(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 100) as server:
        limits = Limits(size=1000, total=60)
        error = failure(server.url, limits, clock=lambda: next(seconds))
    assert "more than 60 seconds" in error.message


@pytest.mark.parametrize(
    "data",
    [
        SECRET.encode() + b"\r\n",
        b"HTTP/1.1 " + SECRET.encode() + b"\r\n\r\n",
        b"HTTP/1.1 404 " + SECRET.encode() + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + SECRET.encode() + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + SECRET.encode(),
        b"HTTP/1.1 200 OK\r\n" + SECRET.encode() * 3000,
        b"",
    ],
)
def test_the_servers_own_words_are_never_shown(data):
    with raw(data) as server:
        assert server.url in failure(server.url).message
        assert server.requests


@pytest.mark.parametrize(("status", "pause"), [(503, 0.0), (429, 0.0), (404, None), (403, None)])
def test_only_temporary_failures_are_worth_a_retry(status, pause):
    with serving({"/x": b""}) as server:
        server.refuse = [status]
        error = failure(server.url + "/x")
    assert (error.status, again(error)) == (status, pause)


@pytest.mark.parametrize(
    ("date", "after", "pause"),
    [
        ("", "17", 17.0),
        ("Sat, 31 Jan 2026 12:00:00 GMT", "Sat, 31 Jan 2026 12:00:30 GMT", 30.0),
        ("Sat, 31 Jan 2026 12:00:00 GMT", "Sat, 31 Jan 2026 11:00:00 GMT", 0.0),
        ("", "Sat, 31 Jan 2026 12:00:30 GMT", 0.0),
        ("", "soon", 0.0),
        ("", "-1", 0.0),
    ],
)
def test_retry_after_is_passed_on(date, after, pause):
    lines = [b"HTTP/1.0 503 X", f"Retry-After: {after}".encode(), f"Date: {date}".encode()]
    with raw(b"\r\n".join([*lines, b"", b""])) as server:
        assert again(failure(server.url)) == pause


def test_a_truncated_body_is_worth_a_retry():
    with raw(b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\n12345") as server:
        error = failure(server.url)
    assert again(error) == 0
    assert isinstance(error, CutOffError)
    assert error.message.endswith("it ended after 5 of 10 bytes")


def test_a_head_has_no_body():
    with serving({"/x": b"12345"}) as server:
        client = Client(environ={})
        with client.open(f"{server.url}/x", "looking", Limits(size=1), method="HEAD") as answer:
            assert answer.length == 5


def test_the_proxy_of_the_environment_is_used():
    with serving({"http://images.invalid/x": b"through"}) as proxy:
        for environ in (
            {"http_proxy": proxy.url},
            {"HTTP_PROXY": proxy.url.removeprefix("http://")},
        ):
            assert read("http://images.invalid/x", environ=environ) == b"through"


@pytest.mark.parametrize("names", ["*", "127.0.0.1", "x, 127.0.0.1", ".0.0.1", "0.0.1"])
def test_hosts_in_no_proxy_are_requested_directly(names):
    with serving({"/x": b"direct"}) as server, serving() as proxy:
        environ = {"http_proxy": proxy.url, "no_proxy": names}
        assert read(f"{server.url}/x", environ=environ) == b"direct"
        assert proxy.requests == []


def test_http_proxy_is_ignored_in_a_cgi_program():
    with serving({"/x": b"direct"}) as server, serving() as proxy:
        environ = {"HTTP_PROXY": proxy.url, "REQUEST_METHOD": "GET"}
        assert read(f"{server.url}/x", environ=environ) == b"direct"
        assert proxy.requests == []


def test_an_unusable_proxy_is_reported_as_a_setting():
    with pytest.raises(UsageError, match="http_proxy"):
        read("http://127.0.0.1:1/", environ={"http_proxy": "socks9://127.0.0.1:1"})
    error = failure("http://127.0.0.1:1/", environ={"http_proxy": "http://127.0.0.1:1"})
    assert "the proxy cannot be used" in error.message
    assert "http_proxy" in (error.hint or "")
