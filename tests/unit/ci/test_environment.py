"""What goes to the runner's files and log cannot be more than was meant."""

import io
import re

import pytest

from lago_images.ci import environment
from lago_images.console import Console, Mode, inert
from lago_images.errors import UsageError

COMMANDS = [
    "::set-env name=PATH::/tmp",
    "  ::add-path::/tmp",
    "\t::stop-commands::x",
    "\x1b[0m::set-output name=a::b",
    "\x00::error::x",
    "\r::error::x",
    "##[add-path]/tmp",
    "text ##[set-env name=a]b",
    "\x1b[1m##\x1b[0m[error]x",
    "#\x00#[error]",
    "ok\n::error::x",
    "ok\u2028::error::x",
    "\u0085::error::x",
    "\ufeff::error::x",
    "\u200b:\u200b:error::x",
    "#\u00ad#[error]x",
    "\u3000::error::x",
]


def parsed(text: str) -> dict[str, str]:
    """As the runner reads GITHUB_OUTPUT."""
    found, lines = {}, iter(text.splitlines())
    for line in lines:
        name, _, delimiter = line.partition("<<")
        value = []
        for part in lines:
            if part == delimiter:
                break
            value.append(part)
        found[name] = "\n".join(value)
    return found


def test_an_output_cannot_add_another(tmp_path):
    file = tmp_path / "out"
    value = "a\nEOF\nother=1\nmatrix<<EOF\nx\nEOF"
    assert environment.write({"GITHUB_OUTPUT": str(file)}, {"matrix": value, "any": "true"})
    assert parsed(file.read_text()) == {"matrix": value, "any": "true"}


def test_every_output_has_another_delimiter(tmp_path):
    file = tmp_path / "out"
    for _ in range(2):
        environment.write({"GITHUB_OUTPUT": str(file)}, {"a": "b"})
    assert len(set(re.findall(r"<<(.*)", file.read_text()))) == 2


def test_an_invalid_output_name_is_refused(tmp_path):
    with pytest.raises(UsageError):
        environment.write({"GITHUB_OUTPUT": str(tmp_path / "out")}, {"a\nb": "c"})


def test_outside_github_no_outputs_are_written():
    assert not environment.write({}, {"a": "b"})
    assert not environment.summarise({}, "x")


def is_command(line: str) -> bool:
    """As the runner recognises them (actions/runner, ActionCommand.cs), which sees no invisible."""
    seen = re.sub("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]", "", line)
    return seen.lstrip().startswith("::") or "##[" in seen


@pytest.mark.parametrize("text", COMMANDS, ids=ascii)
def test_program_output_is_never_a_workflow_command(text):
    assert not any(is_command(line) for line in re.split(r"[\r\n\u2028\u2029\u0085]", inert(text)))
    stream = io.StringIO()
    console = Console(stream=stream, mode=Mode.GITHUB)
    console.output(text)
    console.info(text)
    assert not any(is_command(line) for line in stream.getvalue().splitlines())


def test_github_annotations_omit_the_error_prefix():
    stream = io.StringIO()
    Console(stream=stream, mode=Mode.GITHUB).error("error: it is full\nmake room")
    assert stream.getvalue() == "::error::it is full%0Amake room\n"


@pytest.mark.parametrize("text", COMMANDS, ids=ascii)
def test_each_annotation_is_one_workflow_command(text):
    stream = io.StringIO()
    console = Console(stream=stream, mode=Mode.GITHUB)
    console.error(text)
    console.warn(text)
    console.problem(f"image-specs/{text}", 3, text)
    with console.group(text):
        pass
    lines = stream.getvalue().splitlines()
    assert [re.match(r"::(\w+)", line)[1] for line in lines] == [
        "error",
        "warning",
        "error",
        "group",
        "endgroup",
    ]
    assert re.fullmatch(r"::error file=[^:,]*,line=3::.*", lines[2])
