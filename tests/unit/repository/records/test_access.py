"""How people log in to an image, in a few words."""

import pytest

from lago_images.repository.records.access import Access, Login


@pytest.mark.parametrize(
    ("access", "texts"),
    [
        (Access(), ["the spec sets no password and no key"]),
        (
            Access(logins=(Login(user="root", password="x", has_password=True, has_key=True),)),
            ["root: password x, an ssh key"],
        ),
        (
            Access(logins=(Login(user="me", has_password=True),), cloud_init=True),
            [
                "me: a password that is not published",
                "the users and keys that a cloud names, by cloud-init",
            ],
        ),
    ],
)
def test_each_way_in_is_told(access, texts):
    assert access.texts == texts
