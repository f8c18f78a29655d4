"""What people look at first: examples in every help, man pages, and completion in a shell."""

import os
import re
import select
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from lago_images.cli import man
from lago_images.cli.main import main
from lago_images.storage.directory.store import DirectoryStore
from tests.support import reference
from tests.support.builders import manifest, publish_by_hand
from tests.support.specs import SpecsRepo
from tests.support.terminal import terminal
from tests.tools import need


def every_command(command=main, path=("lago-images",), parent=None):
    """Return each command with its path, groups included."""
    settings = command.context_settings
    ctx = click.Context(command, parent=parent, info_name=path[-1], **settings)
    found = [(" ".join(path), command)]
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            found += every_command(command.get_command(ctx, name), (*path, name), ctx)
    return found


COMMANDS = dict(every_command())


@pytest.mark.parametrize("path", COMMANDS)
def test_every_help_ends_with_a_valid_example(path):
    example = COMMANDS[path].epilog.rpartition("\n")[2].strip()
    words = shlex.split(example.partition(" > ")[0].partition(" && ")[0])
    command: click.Command = main
    ctx = click.Context(main, info_name="lago-images", **main.context_settings)
    assert words.pop(0) == "lago-images"
    while isinstance(command, click.Group):
        name = words.pop(0)
        command = command.get_command(ctx, name)
        ctx = click.Context(command, parent=ctx, info_name=name)
    # Of a group, an example of one of its commands.
    assert ctx.command_path.startswith(path)
    options, rest, _ = command.make_parser(ctx).parse_args(words)
    required = [param.name for param in command.params if param.required]
    assert not [name for name in required if not options.get(name)]
    assert not [value for value in rest if value is not None and value.startswith("-")]


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_says_what_it_is_for(path):
    options = [each for each in COMMANDS[path].params if isinstance(each, click.Option)]
    assert [each.opts for each in options if not each.help] == []


def test_the_reference_names_the_options_of_every_command_and_those_of_the_program():
    ctx = click.Context(main, info_name="lago-images", **main.context_settings)
    page = reference.pages()["commands.md"].partition("\n## ")[0]
    of_all, of_itself = (
        {
            name
            for row in re.findall(r"^\| `(.+)` \|", part, re.MULTILINE)
            for name in re.findall(r"(?<!\S)--?[\w-]+", row)
        }
        for part in page.split("`lago-images` itself also takes:")
    )
    assert {"-h", "--help", "-C"} <= of_all
    assert of_itself == {"--version"}
    for path, command in COMMANDS.items():
        below = click.Context(command, parent=ctx, info_name=path)
        assert of_all <= {name for each in command.get_params(below) for name in each.opts}


def test_every_command_has_a_man_page_without_warnings(tmp_path):
    need("groff")
    names = man.write(tmp_path)
    assert {name.removesuffix(".1") for name in names} == {
        path.replace(" ", "-") for path in COMMANDS
    }
    for name in names:
        shown = subprocess.run(
            ["groff", "-Kutf8", "-man", "-Tutf8", "-ww", "-P-cbou", tmp_path / name],
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stderr == ""
        assert "EXAMPLE" in shown.stdout
    page = (tmp_path / "lago-images-repo-diff.1").read_text()
    assert "\\-\\-arch" in page
    assert "A and B are revisions" in page


def test_man_writes_the_pages_and_says_how_to_read_one(repo, tmp_path):
    ran = repo.run("man", str(tmp_path / "man1"))
    assert ran.code == 0, ran.err
    assert "lago-images-ci-plan.1" in ran.out.splitlines()
    assert (tmp_path / "man1/lago-images-ci-plan.1").is_file()
    assert f"man {tmp_path}/man1/lago-images.1" in ran.err


@pytest.fixture
def repo(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs")
    for name in ("debian-12", "debian-12-nfs", "fedora"):
        repo.spec(name, "simple:disk.raw")
    publish_by_hand(DirectoryStore(path=repo.root / "image-repo"), manifest("published-once"))
    return repo


def in_path(repo):
    return {**repo.env(), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}


_COMPLETE = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_lago_images_completion lago-images
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["rep"], ["repo"]),
        (["repo", "sho"], ["show"]),
        (["build", "deb"], ["debian-12", "debian-12-nfs"]),
        (["ci", "plan", "fe"], ["fedora"]),
        (["try", "debian-12-"], ["debian-12-nfs"]),
        (["lint", "fe"], ["fedora"]),
        (["repo", "show", "p"], ["published-once"]),
        (["repo", "diff", "deb"], []),
        (["repo", "list", "--sta"], ["--state"]),
        (["repo", "list", "--state", "w"], ["withdrawn"]),
    ],
)
def test_bash_completes_commands_options_and_names_of_images(repo, tmp_path, words, completed):
    script = tmp_path / "completion"
    script.write_text(repo.run("completion", "bash").out)
    ran = subprocess.run(
        ["bash", "-c", _COMPLETE, "bash", script, "lago-images", *words],
        cwd=repo.root,
        env=in_path(repo),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == completed, ran.stderr


_FISH = 'source $argv[1]; complete -C "lago-images $argv[2]"'


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("try debian-12-", ["debian-12-nfs"]),
        ("build deb", ["debian-12", "debian-12-nfs"]),
        ("repo show p", ["published-once"]),
        ("repo list --state w", ["withdrawn"]),
    ],
)
def test_fish_completes_names_of_images(repo, tmp_path, words, completed):
    need("fish")
    script = tmp_path / "lago-images.fish"
    script.write_text(repo.run("completion", "fish").out)
    ran = subprocess.run(
        ["fish", "--no-config", "-c", _FISH, script, words],
        cwd=repo.root,
        env={**in_path(repo), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    # Behind a tab it describes each.
    assert [line.split("\t")[0] for line in ran.stdout.splitlines()] == completed, ran.stderr


# Ctrl-X tells what stands in the line that is edited.
_ZSH = """
PS1='ready> '
fpath=("$FUNCTIONS" $fpath)
autoload -U compinit
compinit -u -D
tell() { print -r -- "<$BUFFER>" }
zle -N tell
bindkey '^X' tell
"""


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("try debian-12-", "try debian-12-nfs "),
        ("repo show p", "repo show published-once "),
        ("build deb", "build debian-12"),
    ],
)
def test_zsh_completes_names_of_images_at_a_press_of_tab(repo, tmp_path, typed, line):
    need("zsh")
    (tmp_path / "_lago-images").write_text(repo.run("completion", "zsh").out)
    (tmp_path / ".zshrc").write_text(_ZSH)
    environ = {
        **in_path(repo),
        "TERM": "dumb",
        "ZDOTDIR": str(tmp_path),
        "FUNCTIONS": str(tmp_path),
    }
    keyboard, tty = os.openpty()
    argv = ["zsh", "--no-globalrcs", "-i"]
    with subprocess.Popen(
        argv, cwd=repo.root, env=environ, stdin=tty, stdout=tty, stderr=tty, start_new_session=True
    ) as shell:
        os.close(tty)
        try:
            read_until(keyboard, "ready> ")
            os.write(keyboard, f"lago-images {typed}\t\x18".encode())
            assert read_until(keyboard, "<(.*)>")[1] == f"lago-images {line}"
        finally:
            shell.kill()
            os.close(keyboard)


def read_until(keyboard, pattern):
    """Return what a shell shows, from its start to where it matches."""
    seen = ""
    while not (found := re.search(pattern, seen)):
        assert select.select([keyboard], [], [], 120)[0], seen
        seen += os.read(keyboard, 65536).decode()
    return found


def test_names_are_not_completed_without_specs_or_a_readable_repository(repo):
    repo.write("lago-images.toml", "wrong = 1\n")
    ran = repo.run(
        environ={
            "_LAGO_IMAGES_COMPLETE": "bash_complete",
            "COMP_WORDS": "lago-images build de",
            "COMP_CWORD": "2",
        }
    )
    assert (ran.code, ran.out.strip()) == (0, ""), ran.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shells_completion_script_is_printed_with_its_location(repo, shell):
    ran = repo.run("completion", shell)
    assert ran.code == 0, ran.err
    assert "_LAGO_IMAGES_COMPLETE" in ran.out
    assert ran.err == "", "it is saved already, or evaluated"
    with terminal(200) as screen:
        said = subprocess.run(
            [sys.executable, "-m", "lago_images", "completion", shell],
            env=repo.env(),
            stdout=screen.stream,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        ).stderr
    [place] = re.findall(rf"^save it: lago-images completion {shell} > (.+)$", said, re.MULTILINE)
    assert f"{shell}: {place}" in repo.run("completion", "--help").out


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_completion_scripts_have_no_syntax_error(repo, tmp_path, shell):
    need(shell)
    script = tmp_path / "completion"
    script.write_text(repo.run("completion", shell).out)
    subprocess.run([shell, "-n", script], check=True)


def test_quiet_prints_data_only_and_verbose_adds_what_was_read(repo):
    repo.disk("disk.raw")
    plain, quiet, verbose = (repo.run("ci", "plan", *more) for more in ((), ("-q",), ("-v",)))
    assert plain.out == quiet.out == verbose.out
    assert (plain.code, quiet.code, verbose.code, quiet.err) == (0, 0, 0, "")
    assert "read 3 specs below" in verbose.err
    assert "read 3 specs below" not in plain.err
    # Before the command, too; the last one counts.
    assert "read 3 specs below" in repo.run("-q", "ci", "plan", "-v").err


def test_ci_log_lines_have_a_time_stamp_and_data_has_none(repo):
    repo.disk("disk.raw")
    ran = repo.run("ci", "plan", "-v", environ={"CI": "true"})
    assert ran.err
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in ran.err.splitlines())
    assert ran.out == repo.run("ci", "plan").out
    # GitHub's log has times of its own, and reads commands at the start of a line.
    on_github = repo.run("ci", "plan", "-v", environ={"CI": "true", "GITHUB_ACTIONS": "true"})
    assert not re.match(r"\d\d:\d\d:\d\d ", on_github.err)
