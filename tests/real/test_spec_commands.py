"""Our tables and specs against the real parsers of virt-builder and virt-customize."""

import subprocess
from pathlib import Path

import pytest

from lago_images.specs.commands import COMMANDS, GUEST_PATHS, NEWER, OPTIONS, SELECTORS, Form
from lago_images.specs.parse import parse
from lago_images.specs.read import read
from tests.support.spec_text import commands
from tests.tools import need

pytestmark = pytest.mark.real
ROOT = Path(__file__).parents[2]
HEAD = "#base=a\n#arch=x86_64\n#distro=x\n"
NO_DISK = "/nowhere/disk.img: No such file or directory"


@pytest.fixture(autouse=True)
def tools():
    need("virt-builder", "virt-customize")


def ask(*argv):
    env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=env, check=False)
    return done.stdout + done.stderr


def customize(tmp_path, text):
    """What virt-customize says of a file of commands; it stops at the disk that is not there."""
    path = tmp_path / "commands"
    path.write_text(text)
    return ask("virt-customize", "--commands-from-file", str(path), "-a", "/nowhere/disk.img")


def long_options(program):
    return {line.removeprefix("--") for line in ask(program, "--long-options").split()}


def test_the_command_tables_match_the_installed_programs():
    builder, customizer = long_options("virt-builder"), long_options("virt-customize")
    assert builder | customizer == set(COMMANDS) | set(OPTIONS)
    assert set(COMMANDS) <= builder & customizer
    assert not set(NEWER) & (builder | customizer)


def sample(name):
    """A command with an argument that the parser takes."""
    form = COMMANDS[name].form
    if form is Form.NONE:
        return name
    if name == "password-crypto":
        return f"{name} sha512"
    if name in GUEST_PATHS:
        front = {"chmod": "0755:", "copy-in": "a:", "upload": "a:"}.get(name, "/a:")
        return f"{name} {front if form is Form.PAIR else ''}/x"
    selector = SELECTORS.get(name, ("x",))[0] + ("x" if name != "sm-attach" else "")
    return f"{name} {'a:' if form is Form.PAIR else ''}{selector}"


def test_virt_sysprep_accepts_every_command(tmp_path):
    text = "".join(sample(name) + "\n" for name in COMMANDS if name != "edit") + "edit /x:s/a/b/\n"
    assert NO_DISK in customize(tmp_path, text)
    spec, problems = parse(HEAD + text, name="a", path="a")
    assert problems == []
    assert commands(spec.operations) == text


@pytest.mark.parametrize(
    "line",
    [
        "install inkscape,@Xfce Desktop",
        "install @Development Tools",
        "uninstall @Development Tools,vim",
        "firstboot-install @Xfce Desktop",
        *(
            f"{command}{selector}"
            for command in ("root-password ", "password joe:")
            for selector in (
                "locked",
                "lock",
                "disabled",
                "disable",
                "locked:disabled",
                "lock:locked",
                "locked:random",
                "locked:password:a:b",
            )
        ),
    ],
)
def test_lint_allows_what_the_manual_and_the_program_allow(tmp_path, line):
    assert NO_DISK in customize(tmp_path, line + "\n")
    spec, problems = parse(HEAD + line + "\n", name="a", path="a")
    assert problems == []
    assert commands(spec.operations) == line + "\n"


@pytest.mark.parametrize("name", sorted({*OPTIONS, *NEWER, "instal", "--update"}))
def test_an_unknown_command_is_refused(tmp_path, name):
    said = customize(tmp_path, f"{name} x:y\n")
    assert "not valid, see the man page" in said or "cannot be used in command files" in said


@pytest.mark.parametrize(
    "line",
    [
        "write /x",
        "link a",
        "chmod 1",
        "password root",
        "password-crypto rot13",
        "root-password x",
        "root-password locked:",
        "root-password locked:x",
        "root-password disabled:x",
        "password joe:random:x",
        "ssh-inject root:x",
        "sm-attach x",
        "sm-credentials x",
        "install\tx",
        "#base=b\\\nnonsense\nnonsense",
        "update\\\nx",
    ],
)
def test_lint_refuses_what_the_program_refuses(tmp_path, line):
    assert NO_DISK not in customize(tmp_path, line + "\n")
    assert parse(f"{HEAD}{line}\n", name="a", path="a")[1]


def test_a_continued_argument_has_newlines(tmp_path):
    text = "password-crypto a\\\n  b\n"
    assert "unknown algorithm a\n  b, use" in customize(tmp_path, text)


def specs():
    return read(ROOT, "image-specs").values()


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.name)
def test_the_repositorys_specs_are_accepted_as_written_and_as_rendered(tmp_path, spec):
    assert NO_DISK in customize(tmp_path, (ROOT / spec.path).read_text())
    assert NO_DISK in customize(tmp_path, commands(spec.operations))


def test_virt_builder_refuses_a_bad_command_before_it_fetches(tmp_path):
    path = tmp_path / "commands"
    path.write_text("instal x\n")
    said = ask("virt-builder", "--commands-from-file", str(path), "fedora-44")
    assert "command 'instal' not valid" in said


def test_edit_runs_its_expression_in_a_perl_of_the_host():
    """Why ``spec.edit_command`` exists; if this ends, so may the rule."""
    program = Path("/usr/bin/virt-customize").read_bytes()
    assert b"virt_edit_expr" in program
    assert b"eval $expr" in program
