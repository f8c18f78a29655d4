"""What a call imports: a shell completes once a key press, and most calls need no S3."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from lago_images.cli import shape
from lago_images.cli.main import LazyGroup, main
from tests.support.specs import SpecsRepo
from tests.tools import need

need("git")
# What takes long to import, and all that builds and publishes.
SLOW = (
    "boto3",
    "github",
    "jinja2",
    "urllib3",
    "lago_images.building.chain",
    "lago_images.repository.publishing.publisher",
)
_LIST = """
import json, sys
from lago_images.cli import main
try:
    main(sys.argv[1:], prog_name="lago-images")
except SystemExit as end:
    code = end.code
print("\\n" + json.dumps([code, sorted(sys.modules)]))
"""


@pytest.fixture
def repo(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.disk("disk.img")
    repo.spec("one", "simple:disk.img")
    repo.commit()
    return repo


def called(repo, *args, **environ):
    """Call the command line; return its output, and the modules that it imported."""
    ran = subprocess.run(
        [sys.executable, "-c", _LIST, *args],
        cwd=repo.root,
        env={**os.environ, **repo.env(environ)},
        capture_output=True,
        text=True,
        check=True,
    )
    out, _, last = ran.stdout.rstrip("\n").rpartition("\n")
    code, modules = json.loads(last)
    assert code == 0, ran.stderr
    return out, modules


def slow(modules, *more):
    return [name for name in (*SLOW, *more) if name in modules]


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["ci", "--help"]])
def test_help_and_version_import_nothing_slow(repo, args):
    out, modules = called(repo, *args)
    assert out
    assert slow(modules, "git", "msgspec", "lago_images.settings") == []


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("lago-images ", "build"),
        ("lago-images ci ", "plan"),
        ("lago-images ci plan --ou", "--output"),
        ("lago-images build ", "one"),
        ("lago-images -q repo show --format ", "json"),
        ("lago-images ci build --upload --no-net", "--no-network"),
    ],
)
def test_completion_imports_nothing_slow(repo, words, offered):
    variables = {
        "_LAGO_IMAGES_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    out, modules = called(repo, **variables)
    assert f"plain,{offered}" in out.splitlines()
    assert slow(modules, "git", "msgspec", "lago_images.cli.ci") == []


def test_a_plan_of_a_folder_imports_neither_github_nor_s3(repo):
    out, modules = called(repo, "ci", "plan")
    assert "1 to build" in out
    assert slow(modules) == []


# Each in a process that has imported nothing of them.
_ALONE = """
import os, sys
from importlib import import_module
for module in sys.argv[1:]:
    pid = os.fork()
    if pid == 0:
        import_module(module)
        os._exit(0)
    if os.waitpid(pid, 0)[1] != 0:
        sys.exit(module)
"""


def test_each_command_is_imported_without_the_others():
    """Most tests call commands in processes that have imported all of them."""
    modules = sorted({parameter.values[1].partition(":")[0] for parameter in every_command()})
    assert "lago_images.cli.plan" in modules
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, *modules], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_table_of_options_matches_the_commands():
    assert Path(shape.__file__).with_name(shape.FILE).read_text() == shape.rendered(), (
        "python -m lago_images.cli.shape"
    )


def every_command(group=main):
    for name, lazy in group.lazy.items():
        real = group.real_command(name)
        if isinstance(real, LazyGroup):
            yield from every_command(real)
        else:
            yield pytest.param(name, lazy.place, real, id=lazy.place)


@pytest.mark.parametrize(("name", "place", "real"), [*every_command()])
def test_completion_offers_the_options_of_the_command(name, place, real):
    light = shape.command(name, place)
    assert shape.described(light) == shape.described(real)
    ctx = click.Context(light, info_name=name, resilient_parsing=True)
    # With help, which zsh and fish show.
    offered = {item.value: item.help for item in light.shell_complete(ctx, "--")}
    own = {item.value: item.help for item in real.shell_complete(ctx, "--")}
    assert offered.items() <= own.items()
