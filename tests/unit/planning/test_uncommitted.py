import pytest

from lago_images.planning.uncommitted import Uncommitted
from tests.support.planning import spec, tree

BASE = spec("base", base="libguestfs:debian-12")
LAYER = spec("layer", base="layer:base")
PLAIN = spec("plain", base="simple:plain.img")
INPUTS = {"base": ("files", "keys/one.asc"), "plain": (".",)}


@pytest.mark.parametrize(
    ("dirty", "names", "found"),
    [
        ("image-specs/base", ["base"], True),
        ("image-specs/base", ["layer"], True),
        ("image-specs/layer", ["base"], False),
        ("image-specs/layer", ["base", "layer"], True),
        ("files/a/b", ["layer"], True),
        ("files.txt", ["base"], False),
        # A submodule is known by its folder.
        ("keys", ["base"], True),
        ("image-specs/base.tests/boots", ["layer"], True),
        ("image-specs/base.test", ["base"], True),
        ("image-specs/quarantine.toml", ["base"], True),
        ("lago-images.toml", ["base"], True),
        # All of the checkout is copied.
        ("README.md", ["plain"], True),
        ("README.md", ["layer"], False),
        ("image-specs/removed", ["layer"], False),
        ("image-specs/base", ["retired"], False),
    ],
)
def test_what_is_not_committed_is_behind_the_images_that_are_made_of_it(dirty, names, found):
    made = tree(BASE, LAYER, PLAIN, inputs=INPUTS, dirty=[dirty, "elsewhere/other"])
    other = {"elsewhere/other"} if "plain" in names else set()
    assert Uncommitted.of(made).behind(names) - other == ({dirty} if found else set())


def test_a_link_to_a_spec_is_behind_it_and_so_is_what_lies_beside_its_end():
    linked = tree(BASE, dirty=["variants/base.test", "image-specs/base"])
    ways = {"image-specs/base": ("image-specs/base", "variants/base")}
    linked = type(linked)(
        specs=linked.specs,
        fingerprints=linked.fingerprints,
        inputs=linked.inputs,
        dirty=linked.dirty,
        ways=ways,
    )
    assert Uncommitted.of(linked).behind(["base"]) == linked.dirty


def test_a_template_alone_is_made_of_the_settings():
    made = tree(PLAIN, dirty=["lago-images.toml"])
    assert Uncommitted.of(made).behind(["plain"]) == set()
