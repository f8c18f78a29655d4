"""The fields of /etc/shadow that namespaces set."""

import ctypes

import pytest

from lago_images.building.customise.namespace.passwords import fields, salt
from lago_images.building.customise.namespace.unpack_ext4 import UnsupportedError
from lago_images.errors import BuildError
from tests.support.builders import spec
from tests.tools import cannot

try:
    LIBRARY = ctypes.CDLL("libcrypt.so.1")
except OSError:
    cannot("no libcrypt.so.1 (package libcrypt1)")
LIBRARY.crypt.restype = ctypes.c_char_p


def made(*operations):
    return fields(spec("image", "layer:b", *operations), "sha256:1")


def opens(password, field):
    return LIBRARY.crypt(password.encode(), field.encode()) == field.encode()


def test_a_password_opens_what_it_was_set_for():
    root = made(("root-password", "password:a:b:c"))["root"]
    assert root.startswith("$y$j9T$")
    assert opens("a:b:c", root)
    assert not opens("a", root)


@pytest.mark.parametrize(
    ("method", "start"), [("md5", "$1$"), ("sha256", "$5$"), ("sha512", "$6$")]
)
def test_the_method_holds_for_all_wherever_it_stands(method, start):
    both = made(
        ("root-password", "password:x"), ("password-crypto", method), ("password", "j:password:y")
    )
    assert both["root"].startswith(start)
    assert opens("y", both["j"])


def test_locked_and_disabled_accounts():
    found = made(
        ("password", "a:locked:password:x"),
        ("password", "b:disabled"),
        ("password", "c:locked"),
        ("password", "d:lock:disable"),
    )
    assert found["a"].startswith("!!$y$")
    assert opens("x", found["a"][2:])
    assert (found["b"], found["c"], found["d"]) == ("*", "!!*", "!!*")


def test_a_second_password_is_refused():
    with pytest.raises(BuildError, match="image-specs/image:1: root-password"):
        made(("password", "root:password:x"), ("root-password", "password:y"))


@pytest.mark.parametrize("selector", ["random", "file:secret", "locked:random"])
def test_other_selectors_are_the_appliances(selector):
    with pytest.raises(UnsupportedError):
        made(("root-password", selector))


def test_a_salt_is_of_the_image_its_base_and_the_user():
    one = spec("one", "layer:b")
    salts = {salt(one, "1", "root"), salt(one, "2", "root"), salt(one, "1", "joe")}
    assert len({*salts, salt(spec("two", "layer:b"), "1", "root")}) == 4
    assert salt(one, "1", "root") == salt(one, "1", "root")
    assert all(len(each) == 24 for each in salts)
