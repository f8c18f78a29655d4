"""What is taken for a secret key's text, and everything that looks like it and is none."""

import base64
import hashlib
import random

import pytest

from lago_images.console import Console, Mode
from lago_images.errors import Error, Problem
from lago_images.secret_text import HIDDEN, is_key_alone, without_keys

BYTES = random.Random(7)


def base64_of(count, width=64):
    text = base64.b64encode(BYTES.randbytes(count)).decode()
    return "\n".join(text[at : at + width] for at in range(0, len(text), width))


def armoured(label, body, dashes="-----"):
    after = dashes[::-1]
    return f"{dashes}BEGIN {label}{after}\n{body}\n{dashes}END {label}{after}"


def ssh_public(kind, count):
    name = kind.encode()
    blob = len(name).to_bytes(4) + name + count.to_bytes(4) + BYTES.randbytes(count)
    return f"{kind} {base64.b64encode(blob).decode()} me@example.org"


OPENSSH = base64.b64encode(b"openssh-key-v1\0\0\0\0\4none" + BYTES.randbytes(241)).decode()
AWS = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SECRET = [
    armoured("PGP PRIVATE KEY BLOCK", f"Version: GnuPG v2\n\n{base64_of(192)}\n=aB3d"),
    armoured("OPENSSH PRIVATE KEY", OPENSSH),
    armoured("RSA PRIVATE KEY", base64_of(192)),
    armoured("SSH2 ENCRYPTED PRIVATE KEY", base64_of(192), "---- "),
    f"-----BEGIN PRIVATE KEY-----\n{base64_of(24)}",
    *base64_of(480).splitlines(),
    *(OPENSSH[at : at + 70] for at in range(0, 280, 70)),
    AWS,
    f"/{AWS[1:]}",
    AWS.translate(str.maketrans("7", "x")),
    *(base64_of(30) for _ in range(200)),
]
LOGINS = {
    "https://me:hunter2@host/x": "https://…@host/x",
    "https://me:hun/ter2@host/x": "https://…@host/x",
    "https://me:hun@ter2@host/x": "https://…@host/x",
    "https://ghp_Token@host/x.git": "https://…@host/x.git",
    "HTTP://:hunter2@host": "HTTP://…@host",
    "socks5://me:hunter2@host:1080": "socks5://…@host:1080",
    "https://a:b@one https://c:d@two": "https://…@one https://…@two",
}
DIGEST = hashlib.sha256(b"x").digest()
LONG = hashlib.sha512(b"x").digest()
PUBLIC = [
    "/srv/VirtualMachines/ImageRepositories/Production2026",
    "s3://b/TeamInfrastructure2026/VirtualMachines/ImageRepository",
    "file:/home/builder/VirtualMachines/SigningKeys/Production2026",
    "cannot write /home/jenkins/workspace/BuildImages2026/ProductionRepository: no space",
    "/private/var/folders/q8/6p2kvb1n3mx4zs9yt0wrrc0000gn/T/LagoImages2026/BuildLogs",
    "/Users/ci/Library/ApplicationSupport/MobileSync/Backup/iOS17/AppV2",
    "/Volumes/DevDisk/VMs/OSX/XcodeCI/DerivedData/LagoImagesUITests2026",
    "uplod files/ProductionConfigurationFiles2026/ApplicationSettings:/etc/x",
    f"builds/Fedora42/{DIGEST.hex()}/{LONG.hex()}/Manifest",
    "https://github.com/actions/checkout@v4",
    "https://host:8080/path@v1",
    "https://[::1]:8080/x@y",
    "https://host/x?mail=me@example.org",
    "ssh://git@github.com/lago-project/lago-images.git",
    "git@github.com:lago-project/lago-images.git",
    "s3://tenant:bucket/prefix",
    *(DIGEST.hex(), LONG.hex(), hashlib.sha1(b"x").hexdigest()),
    *(f"0x{DIGEST.hex().upper()[:40]}", DIGEST.hex().upper()),
    f"SHA256:{base64.b64encode(DIGEST).decode().rstrip('=')}",
    f"sha256-{base64.b64encode(DIGEST).decode()}",
    f"x-amz-checksum-sha256: {base64.b64encode(DIGEST).decode()}",
    f"sha512-{base64.b64encode(LONG).decode()}",
    f"request 4442587FB7D0A2F9, HostId: {base64_of(56, 80)}",
    f"x-amz-id-2: {base64_of(56, 80)}",
    ssh_public("ssh-rsa", 256),
    ssh_public("ssh-ed25519", 32),
    ssh_public("ecdsa-sha2-nistp256", 65),
    ssh_public("sk-ssh-ed25519@openssh.com", 32),
    ssh_public("sk-ecdsa-sha2-nistp256@openssh.com", 65),
    ssh_public("ssh-ed25519-cert-v01@openssh.com", 300),
    f"|1|{base64_of(20)}|{base64_of(20)} {ssh_public('ssh-ed25519', 32)}",
    armoured("PGP PUBLIC KEY BLOCK", f"Version: GnuPG v2\n\n{base64_of(480)}\n=aB3d"),
    armoured("SSH2 PUBLIC KEY", f'Comment: "me"\n{base64_of(480, 70)}', "---- "),
    armoured("PGP SIGNATURE", f"\n{base64_of(96)}"),
    armoured("CERTIFICATE", base64_of(480)),
    *("AB" * 40, "a" * 100, "/" * 100, "A1" * 50),
]
# Repeated to half a megabyte, each would take minutes if time grew with the square.
PIECES = [
    *("a", "/", "aB3/", "-", "a@", "http://a:", "//a:", "https://", "https://a:b", "sha256-"),
    *("-----BEGIN ", "-----END ", "PRIVATE KEY", "-----BEGIN PUBLIC KEY-----\n"),
    *("-----BEGIN PRIVATE KEY-----\n", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY"),
]


@pytest.mark.parametrize("text", SECRET)
def test_a_secret_key_is_found_and_nothing_of_it_is_shown(text):
    assert is_key_alone(text)
    for form in ("{}", "cannot read {}", "'{}'", "env:{}", "/home/jenkins/workspace/Images/{}"):
        quoted = form.format(text)
        shown = without_keys(quoted)
        assert HIDDEN in shown
        assert not [line for line in text.splitlines() if len(line) > 30 and line in shown]


@pytest.mark.parametrize("text", PUBLIC)
def test_what_is_public_stays_as_it_is(text):
    for form in ("{}", "cannot read {}: no space", "'{}'"):
        assert without_keys(form.format(text)) == form.format(text)
    assert not is_key_alone(text)


def test_a_public_key_beside_a_secret_one_is_shown_alone():
    assert without_keys(f"{PUBLIC[-8]}\n{SECRET[0]}\n{PUBLIC[0]}") == (
        f"{PUBLIC[-8]}\n{HIDDEN}\n{PUBLIC[0]}"
    )


@pytest.mark.parametrize(("text", "shown"), LOGINS.items())
def test_a_login_of_a_url_is_not_shown(text, shown):
    assert without_keys(f"cannot reach {text}") == f"cannot reach {shown}"


def test_errors_problems_and_warnings_show_paths_and_hide_keys(capsys):
    for text, shown in ((PUBLIC[3], PUBLIC[3]), (AWS, HIDDEN)):
        assert Error(text, hint=text).hint == Error(text).message == shown
        assert Problem("x", 1, text).what == shown
        Console(mode=Mode.GITHUB).warn(text)
        assert capsys.readouterr().err == f"::warning::{shown}\n"


@pytest.mark.parametrize("piece", PIECES)
def test_time_grows_with_the_length(piece):
    text = piece * (500_000 // len(piece))
    without_keys(text)
    is_key_alone(text)
