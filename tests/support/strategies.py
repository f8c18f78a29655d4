"""Hypothesis's repositories: any properties, histories and architectures that could be there."""

from dataclasses import replace

from hypothesis import strategies as st

from lago_images.repository.records.layout import NAME, ImageId
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.release import ObjectDigest, ReleasedImage
from lago_images.repository.records.state import State
from tests.support.builders import copy_id, manifest, release

# Anything JSON can carry, lone surrogates too: what renders must not depend on who checked.
_WILD = st.text(
    st.one_of(st.characters(), st.sampled_from("[]=#-\n\r\t \"'<>&\x00\x1b\u2028\ud800®")),
    max_size=20,
)
NAMES = st.from_regex(NAME, fullmatch=True).filter(lambda name: len(name) < 30)
_KEYS = ("name", "osinfo", "expand", "lvexpand", "version", "notes", "notes[fr]", "hidden", "x")
PROPERTIES = st.dictionaries(st.sampled_from(_KEYS), _WILD, max_size=6)


@st.composite
def states(draw) -> State:
    """A state of a few images with a few revisions each, some of them withdrawn."""
    images = draw(
        st.sets(st.tuples(NAMES, st.sampled_from(["x86_64", "aarch64", "i686"])), max_size=4)
    )
    releases = {}
    for name, arch in sorted(images):
        history = []
        for revision in range(1, draw(st.integers(1, 4)) + 1):
            before = [r.revision for r in history if r.image is not None]
            if before and draw(st.booleans()):
                made = release(
                    revision, None, name, arch=arch, withdraws=draw(st.sampled_from(before))
                )
            else:
                image = _image(_manifest(draw, name, arch, revision))
                made = replace(release(revision, None, name, arch=arch), image=image)
            history.append(_at(made, draw(st.integers(0, 2**33))))
        releases[ImageId(name, arch)] = tuple(history)
    retired = {
        one.public
        for history in releases.values()
        for one in history
        if one.public and draw(st.integers(0, 9)) == 0
    }
    return State(releases=releases, objects={}, published=None, retired=frozenset(retired))


def _image(made: Manifest) -> ReleasedImage:
    # Its digests are not true ones: what is not text has none.
    nothing = ObjectDigest(sha256="0" * 64, size=0)
    return ReleasedImage(
        build=made.build_id,
        folder=copy_id(made.build_id),
        manifest=made,
        objects={"packages.txt": nothing},
    )


def _manifest(draw, name: str, arch: str, revision: int) -> Manifest:
    return manifest(name, f"b{revision}", arch=arch, properties=draw(PROPERTIES))


def _at(made, published: int):
    return type(made)(**{**{f: getattr(made, f) for f in made.__slots__}, "published": published})
