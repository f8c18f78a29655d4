"""Whether a guest takes the logins that a spec documents."""

import os
import pwd
import subprocess

import pytest

from lago_images.building.boot.inspection import parse, script
from lago_images.building.boot.ssh_login import key_type
from lago_images.specs.logins import Logins


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home/.ssh").mkdir(parents=True)
    (tmp_path / "home").chmod(0o755)
    (tmp_path / "home/.ssh").chmod(0o700)
    keys = tmp_path / "home/.ssh/authorized_keys"
    keys.write_text('# ssh-ed25519 BBBB\nfrom="*" ssh-ed25519 AAAA me\n')
    keys.chmod(0o600)
    return tmp_path / "home"


def has_key(home, *blobs):
    """Whether the guest's script, run here, takes the key of this user with another home."""
    user = pwd.getpwuid(os.getuid()).pw_name
    program = home.parent / "getent"
    program.write_text(f"#!/bin/sh\necho {user}:x:0:0::{home}:/bin/sh\n")
    program.chmod(0o755)
    ran = subprocess.run(
        ["/bin/sh", "-c", script("keys", Logins(keys={user: blobs or ("AAAA",)}))],
        env={"PATH": f"{home.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return parse(ran.stdout).logins == {f"key of {user}": True}


def test_a_key_that_sshd_believes(home):
    assert has_key(home)


@pytest.mark.parametrize("name", [".", ".ssh", ".ssh/authorized_keys"])
def test_a_key_that_others_may_have_put_there(home, name):
    (home / name).chmod(0o777)
    assert not has_key(home)


def test_another_key(home):
    for others in (("BBBB",), ("AAAA", "CCCC"), ("ed25519",)):
        assert not has_key(home, *others)


@pytest.mark.parametrize("text", ["", "# ssh-ed25519 AAAA\n", None])
def test_no_key(home, text):
    (home / ".ssh/authorized_keys").unlink()
    if text is not None:
        (home / ".ssh/authorized_keys").write_text(text)
    assert not has_key(home)


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_a_key_of_ours_is_of_the_type_of_the_users(tmp_path, kind):
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", tmp_path / "key"]
    subprocess.run(argv, check=True, timeout=60)
    [_, blob, *_] = (tmp_path / "key.pub").read_text().split()
    assert key_type((blob, "AAAA")) == kind


def test_no_key_is_of_the_usual_type():
    assert key_type(()) == "ed25519"


# As Linux-PAM numbers what an account's end, a password's, and a change at the next login are.
@pytest.mark.parametrize(
    ("code", "account", "works"),
    [(0, 0, True), (7, 0, False), (0, 13, False), (0, 27, False), (0, 12, True), (0, 4, True)],
)
def test_the_guests_own_pam_tells_whether_a_password_lets_in(tmp_path, code, account, works):
    program = tmp_path / "unix_chkpwd"
    # As the real one: the password comes with a NUL behind it.
    program.write_text(
        f"#!/bin/sh\n[ \"$1 $2\" != 'me chkexpiry' ] || exit {account}\n"
        "[ \"$1 $2\" = 'me nullok' ] || exit 9\n"
        f"[ \"$(od -An -tx1 | tr -d ' \\n')\" = 613a2024787c00 ] || exit 8\nexit {code}\n"
    )
    program.chmod(0o755)
    ran = subprocess.run(
        ["/bin/sh", "-c", script("passwords", Logins(passwords={"me": "a: $x|"}))],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert parse(ran.stdout).logins == {"password of me": works}
