"""A fingerprint sees everything that can change a disk, and nothing else."""

import hashlib
import json
import random
from dataclasses import fields, replace

from hypothesis import assume, given
from hypothesis import strategies as st

from lago_images.planning.fingerprint import fingerprint, parts
from lago_images.specs.model import Base, BaseKind, Operation, Spec
from lago_images.specs.parse import parse

LINES = ["#base=libguestfs:fedora-42", "#arch=x86_64", "#distro=fedora", "#version=1", "#team=a b"]
COMMANDS = ["install nfs-utils", "write /etc/a:1", "run-command true", "update"]
FILES = [("a", "", "100644", "d1"), ("b", "x/y", "100755", "d2")]
SOURCES = [("http://t", "F", "k1")]


def read(*lines: str, name: str = "nfs") -> Spec:
    spec, problems = parse("\n".join(lines) + "\n", name=name, path=f"image-specs/{name}")
    assert spec is not None
    assert problems == []
    return spec


def of(spec: Spec, base=None, files=(), sources=()) -> str:
    return fingerprint(parts(spec, base=base, files=files, sources=sources))


PLAIN = of(read(*LINES, *COMMANDS), files=FILES, sources=SOURCES)


def test_the_fingerprint_of_an_unchanged_spec_never_changes():
    # Only a raised RECIPE may change this: users' images would all be built again.
    assert PLAIN == ("7bd8ce6908c02d6086d6bd8507b0bddd0b4df62390d8fbc9648c00a3a5528164")


@given(seed=st.integers(), blanks=st.lists(st.integers(0, 8), max_size=5))
def test_comments_blank_lines_and_the_order_of_properties_do_not_change_it(seed, blanks):
    chance = random.Random(seed)
    lines = [*chance.sample(LINES, len(LINES)), *COMMANDS]
    for place in blanks:
        lines.insert(place, chance.choice(["", "# a comment", "   "]))
    files = chance.sample(FILES, len(FILES))
    assert of(read(*lines), files=files, sources=SOURCES) == PLAIN


@given(st.permutations(COMMANDS))
def test_the_order_of_commands_changes_it(commands):
    assume(commands != COMMANDS)
    assert of(read(*LINES, *commands), files=FILES, sources=SOURCES) != PLAIN


@given(
    st.dictionaries(
        st.text(max_size=3),
        st.recursive(
            st.text(st.characters(exclude_categories=()), max_size=6) | st.integers(0, 9),
            lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
            max_leaves=5,
        ),
        max_size=4,
    )
)
def test_it_is_of_the_same_json_however_that_is_written(inputs):
    odd = {**inputs, "a": "\x7f", "b": "ü\u2028", "c": "\udc80/\\"}
    for each in (inputs, odd):
        text = json.dumps(each, sort_keys=True, separators=(",", ":"))
        assert fingerprint(each) == hashlib.sha256(text.encode()).hexdigest()


text = st.text(alphabet=st.characters(codec="utf-8"), max_size=8)
operations = st.builds(Operation, name=text, argument=text, line=st.integers(1))
specs = st.builds(
    Spec,
    name=text,
    path=text,
    base=st.builds(Base, kind=st.sampled_from(BaseKind), name=text, line=st.integers(1)),
    arch=text,
    properties=st.dictionaries(text, text, max_size=3),
    operations=st.lists(operations, max_size=3).map(tuple),
    lines=st.dictionaries(text, st.integers(1), max_size=2),
)
INVISIBLE = {"path", "lines"}


@given(specs, specs)
def test_every_field_of_a_spec_but_its_position_changes_it(one, other):
    for field in fields(Spec):
        changed = replace(one, **{field.name: getattr(other, field.name)})
        same = said(one, field.name) == said(other, field.name)
        assert (of(one) == of(changed)) == (same or field.name in INVISIBLE), field.name


def said(spec: Spec, field: str) -> object:
    """A field without line numbers."""
    if field == "base":
        return str(spec.base)
    if field == "operations":
        return [(one.name, one.argument) for one in spec.operations]
    return getattr(spec, field)


files = st.lists(st.tuples(text, text, text, text), max_size=3, unique=True)


@given(files, files)
def test_every_input_file_changes_it(one, other):
    spec = read(*LINES)
    assert (of(spec, files=one) == of(spec, files=other)) == (sorted(one) == sorted(other))


def test_the_base_and_the_template_sources_used_change_it():
    layer = read("#base=layer:fedora", *LINES[1:])
    template = read(*LINES)
    assert of(layer, base="f1") != of(layer, base="f2")
    for other in ("http://u", "F", "k1"), ("http://t", "G", "k1"), ("http://t", "F", "k2"):
        assert of(template, sources=SOURCES) != of(template, sources=[other])
    assert of(template, sources=SOURCES) != of(template)
    assert of(layer, base="f1", sources=SOURCES) == of(layer, base="f1")


@given(specs, specs)
def test_fingerprints_differ_exactly_when_their_parts_do(one, other):
    old, new = (parts(spec, base=None, files=()) for spec in (one, other))
    assert (old == new) == (fingerprint(old) == fingerprint(new))
