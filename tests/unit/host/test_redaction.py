"""What a log of programs does not show, and a guest is not told."""

import sys

import pytest

from lago_images.errors import CommandError
from lago_images.host.process import Runner
from lago_images.host.redaction import environment_for


def logged(tmp_path, argv, *, fails=False):
    """What the log says of a program, and what its failure does."""
    runner = Runner(log=tmp_path / "log")
    told = ""
    if fails:
        with pytest.raises(CommandError) as caught:
            runner.run(argv)
        told = "\n".join([caught.value.message, *caught.value.tail])
    else:
        runner.run(argv)
    return (tmp_path / "log").read_text() + told


@pytest.mark.parametrize(
    "url",
    [
        "http://me:s3cret@proxy:3128/",
        "https://s3cret@host/path",
        "socks5h://me:s3@cret@host",
        "mirror+http://me:s3cret@host/list?a=b@c",
    ],
)
@pytest.mark.parametrize("fails", [True, False])
def test_users_and_passwords_in_urls_are_redacted(tmp_path, url, fails):
    script = f"print('got {url} it'); raise SystemExit({int(fails)})"
    text = logged(tmp_path, [sys.executable, "-c", script], fails=fails)
    assert "cret" not in text
    host = url.rpartition("@")[2] if "?" not in url else "host/list?a=b@c"
    assert text.count(f"//…@{host} it") == 2 + fails


def test_captured_output_is_returned_whole_and_logged_redacted(tmp_path):
    runner = Runner(log=tmp_path / "log")
    out = runner.capture(["sh", "-c", 'echo "$1@h/"; echo "$1@e/" >&2', "sh", "http://me:s3cret"])
    assert out == b"http://me:s3cret@h/\n"
    assert (tmp_path / "log").read_text().endswith("\nhttp://…@e/\n")


@pytest.mark.parametrize("option", ["--sm-credentials", "--password"])
@pytest.mark.parametrize("password", ["s3cret", "it's s3cret:password:s3cret", "two\ns3cret"])
def test_passwords_in_virt_sysprep_options_are_redacted(tmp_path, option, password):
    text = logged(tmp_path, ["true", option, f"me:password:{password}", "--install", "x"])
    assert text == f"+ true {option} 'me:password:…' --install x\n"


def test_text_without_a_password_is_unchanged(tmp_path):
    argv = ["true", "--ssh-inject", "me:string:ssh-rsa a@b", "--write", "/a:b:password:c"]
    argv += ["//", "file:///srv/x", "git@host:x", "http://h/a@b", "--sm-credentials", "me:file:pw"]
    assert logged(tmp_path, argv) == (
        "+ true --ssh-inject 'me:string:ssh-rsa a@b' --write /a:b:password:c "
        "// file:///srv/x git@host:x http://h/a@b --sm-credentials me:file:pw\n"
    )


@pytest.mark.parametrize(
    ("proxy", "told"),
    [
        ("http://me:s3cret@proxy:3128/", "http://proxy:3128/"),
        ("me:s3@cret@proxy:3128", "proxy:3128"),
        ("http://proxy:3128", "http://proxy:3128"),
        ("", ""),
    ],
)
def test_a_guest_does_not_get_the_proxys_password(proxy, told):
    environment = {"http_proxy": proxy, "https_proxy": proxy, "HOME": "/home/a@b"}
    assert environment_for("virt-sysprep", environment) == {
        "http_proxy": told,
        "https_proxy": told,
        "HOME": "/home/a@b",
    }
    assert environment_for("mmdebstrap", environment) == environment
