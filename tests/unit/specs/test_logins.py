"""The passwords and keys that a spec's commands set."""

import pytest

from lago_images.specs.logins import Logins, Password, documented, passwords
from tests.support.builders import lines


def test_of_a_users_passwords_the_last_counts_if_it_is_in_plain_text():
    spec = lines(
        "",
        "root-password password:one",
        "root-password password:two:with:colons",
        "password me:password:mine",
        "password other:locked:password:x",
        "password gone:password:y",
        "password gone:random",
        "ssh-inject me:string:ssh-ed25519 AAAA",
        'ssh-inject me:string:from="10.*" ecdsa-sha2-nistp256 BBBB me@home',
        "ssh-inject root:file:files/keys",
    )
    passwords = {"root": "two:with:colons", "me": "mine"}
    files = {
        "files/keys": "# ssh-rsa XXXX\n\nssh-rsa CCCC\nsk-ssh-ed25519@openssh.com DDDD\nssh-\n"
    }
    assert documented([spec], files.__getitem__) == Logins(
        passwords=passwords, keys={"me": ("AAAA", "BBBB"), "root": ("CCCC", "DDDD")}
    )


def test_a_layer_has_the_logins_of_what_it_stands_on_unless_it_sets_others():
    base = lines(
        "#root-password=told",
        "root-password password:other",
        "password me:password:mine",
        "ssh-inject me:string:ssh-rsa AAAA",
    )
    layer = lines("password me:disabled", "ssh-inject me:string:ssh-rsa BBBB")
    assert documented([base, layer], dict[str, str]().__getitem__) == Logins(
        passwords={"root": "told"}, keys={"me": ("AAAA", "BBBB")}
    )


@pytest.mark.parametrize(
    ("selector", "text", "is_usable"),
    [
        ("password:a:b", "a:b", True),
        ("password:two\nlines", None, True),
        ("file:secret", None, True),
        ("locked", None, False),
        ("random", None, False),
    ],
)
def test_a_password_is_usable_where_somebody_may_know_it(selector, text, is_usable):
    password = Password(selector=selector, is_public=False)
    assert (password.text, password.is_usable) == (text, is_usable)


def test_roots_password_is_public_as_lago_gets_it_unless_another_command_sets_it():
    public = lines("", "root-password password:x")
    other = lines("", "root-password password:x", "password root:password:y")
    assert passwords(public.operations)["root"].is_public
    assert not passwords(other.operations)["root"].is_public
