"""The parser over any text: it never raises, and what it accepts survives a round trip."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from lago_images.specs.commands import COMMANDS, GUEST_PATHS, OPTIONS, Form
from lago_images.specs.edit_command import is_harmless
from lago_images.specs.host_files import host_files
from lago_images.specs.parse import parse
from lago_images.specs.properties import KNOWN
from tests.support.spec_text import commands, text

HEADER = "#base=libguestfs:x\n#arch=x86_64\n#distro=el9\n"
_PIECES = ["#", "=", "\\", "\n", "\\\n", " ", "\t", "\r", ":", ",", "::", "--", "é", "\0", "\ufeff"]
_WORDS = ["base", "layer:", "file:", "/etc/x", "#base=a\n", "#arch=x86_64\n", "#distro=x\n"]
fragments = st.sampled_from([*_PIECES, *_WORDS, *COMMANDS, *OPTIONS, *KNOWN])
_FRONTS = {"chmod": "0755:/", "copy-in": "x:/", "upload": "x:/"}
texts = st.lists(fragments | st.text(max_size=8), max_size=40).map("".join)
names = st.from_regex(r"[A-Za-z0-9][-A-Za-z0-9._]{0,20}", fullmatch=True)
# Fillers and variation selectors: Unicode counts them as letters and marks, and nobody sees them.
UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0" + "".join(
    map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
)
printable = st.text(
    st.characters(
        codec="utf-8", exclude_categories=["C", "Zl", "Zp", "Zs"], exclude_characters=UNSEEN
    ),
    min_size=1,
    max_size=20,
)


@st.composite
def operation_lines(draw):
    name = draw(st.sampled_from(sorted(set(COMMANDS) - {"edit"})))
    form = COMMANDS[name].form
    word = printable.filter(lambda w: not w.startswith("-") and "," not in w and w[-1] != "\\")
    if form is Form.NONE:
        return name
    if name == "password-crypto":
        return f"{name} {draw(st.sampled_from(['md5', 'sha256', 'sha512']))}"
    if form is Form.PACKAGES:
        return f"{name} {','.join(draw(st.lists(word, min_size=1, max_size=4)))}"
    if name in {"root-password", "sm-attach"}:
        return f"{name} file:{draw(word)}"
    if name in {"password", "ssh-inject", "sm-credentials"}:
        return f"{name} user:file:{draw(word)}"
    parts = draw(st.lists(word, min_size=1, max_size=3))
    if name == "link":
        parts = [part.replace(":", "") for part in parts]
    front = "x:" if form is Form.PAIR else ""
    if name in GUEST_PATHS:
        front = _FRONTS.get(name, "/x:/" if form is Form.PAIR else "/")
    return f"{name} {front}" + "\\\n".join(parts)


@given(texts)
@example("\\")
@example("#\\\n#base=x")
@settings(max_examples=400, deadline=None)
def test_parsing_never_raises_and_every_problem_has_its_line(some):
    spec, problems = parse(some, name="a", path="p/a")
    last = some.count("\n") + 1
    for problem in problems:
        assert problem.path == "p/a"
        assert problem.what
        assert problem.what.isprintable()
        if problem.line is None:
            assert problem.what.startswith("no ")
        else:
            assert 1 <= problem.line <= last
    if spec is None:
        assert problems
    else:
        host_files(spec)


@given(
    names,
    st.lists(operation_lines(), max_size=8),
    st.dictionaries(names, printable.filter(lambda value: value[-1] != "\\"), max_size=4),
)
@settings(max_examples=300, deadline=None)
def test_a_rendered_spec_parses_to_the_same_spec(name, lines, carried):
    properties = "".join(f"#x-{key}={value}\n" for key, value in carried.items())
    source = HEADER + properties + "".join(line + "\n" for line in lines)
    spec, problems = parse(source, name=name, path=name)
    assert problems == []
    assert len(spec.operations) == len(lines)
    again, problems = parse(text(spec), name=name, path=name)
    assert problems == []
    assert again.properties == spec.properties
    assert [(o.name, o.argument) for o in again.operations] == [
        (o.name, o.argument) for o in spec.operations
    ]
    assert commands(again.operations) == commands(spec.operations)


@given(st.text(alphabet="s/y|$_@{}[]()?=\\`'\" ;.eigx1&if-#!", max_size=30))
@settings(max_examples=500, deadline=None)
def test_no_accepted_edit_expression_runs_code(expression):
    if is_harmless(expression):
        plain = expression.replace("\\\\", "")
        for opener in ("@{", "@$", "@_", "(?{", "${_", "$_[", "$_{", "$1[", "$1{", "$&["):
            for place in range(len(plain)):
                if plain.startswith(opener, place):
                    before = plain[place - 1] if place else ""
                    in_quotes = plain.count("'", 0, place) % 2 == 1
                    in_table = "y" in plain[:place] or "tr" in plain[:place]
                    assert before == "\\" or in_quotes or in_table, expression
