"""What readers of an image's page learn of the ways in to it, and what they must not."""

from lago_images.repository.records.access import Access, Login
from lago_images.repository.rendering.access import access
from tests.support.builders import lines, spec


def test_the_published_password_is_told_and_of_others_that_they_are_there():
    made = lines(
        "root-password password:old",
        "root-password password:123:456",
        "password ann:password:hunter2",
        "password bob:file:secrets/bob",
        "password gone:password:x",
        "password gone:locked:password:x",
        "password random:random",
        "ssh-inject bob:string:ssh-ed25519 AAAA",
        "ssh-inject deploy:file:keys/deploy.pub",
    )
    told = access(made, {})
    assert told.logins == (
        Login(user="root", password="123:456", has_password=True),
        Login(user="ann", has_password=True),
        Login(user="bob", has_password=True, has_key=True),
        Login(user="deploy", has_key=True),
    )
    assert told.texts == [
        "root: password 123:456",
        "ann: a password that is not published",
        "bob: a password that is not published, an ssh key",
        "deploy: an ssh key",
    ]


def test_a_password_of_root_that_lago_does_not_get_is_no_ones_to_publish():
    made = lines("root-password password:123456", "password root:password:hunter2")
    assert access(made, {}).logins == (Login(user="root", has_password=True),)


def test_the_property_wins_over_the_command_as_it_does_for_lago():
    made = spec("a", "simple:x", ("root-password", "random"), **{"root-password": "cirros"})
    assert access(made, {}).texts == ["root: password cirros"]


def test_a_layer_has_the_logins_of_what_it_stands_on_unless_it_changes_them():
    below = spec(
        "below",
        "bootstrap:debian-12",
        ("root-password", "password:1"),
        ("ssh-inject", "ann:string:k"),
        **{"cloud-init": "yes"},
    )
    same, other = (
        spec("same", "layer:below"),
        spec("other", "layer:same", ("root-password", "lock")),
    )
    specs = {each.name: each for each in (below, same, other)}
    assert access(same, specs) == access(below, specs)
    assert access(same, specs).texts == [
        "root: password 1",
        "ann: an ssh key",
        "the users and keys that a cloud names, by cloud-init",
    ]
    assert access(other, specs).logins == (Login(user="ann", has_key=True),)


def test_none_is_told_as_none():
    assert access(spec("a", "simple:x"), {}) == Access()
    assert Access().texts == ["the spec sets no password and no key"]
