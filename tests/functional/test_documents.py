"""What the documents say of the command line and the settings is so."""

import ast
import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from lago_images.cli import main
from lago_images.repository.rendering.site import DEFAULT_NAME
from lago_images.settings import CHOICES, Settings, load
from tests.support.specs import IDENTITY, SpecsRepo
from tests.tools import need

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def leaves(command=main, names=()):
    """The names of all commands that are no groups, such as ``ci plan``."""
    if not isinstance(command, click.Group):
        return [" ".join(names)]
    context = click.Context(command, **command.context_settings)
    names_below = command.list_commands(context)
    children = ((name, command.get_command(context, name)) for name in names_below)
    return [leaf for name, child in children for leaf in leaves(child, (*names, name))]


COMMANDS = leaves()
_FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:\.venv/bin/|ci/)?lago-images [^`]+)`")
_CALL = re.compile(r"(?:^|[\s/])lago-images ([a-z].*)")


def calls(text):
    """Every call of lago-images in a document, as words; ``a|b`` stands for two calls."""
    lines = [line for block in _FENCED.findall(text) for line in block.splitlines()]
    for line in [*lines, *_INLINE.findall(text)]:
        match = _CALL.search(line)
        if match and not line.lstrip().startswith("#"):
            words = shlex.split(match[1].replace("\\|", "|").split("&&")[0], comments=True)
            alternatives = [i for i, word in enumerate(words[:2]) if "|" in word]
            if not alternatives:
                yield words
            for at in alternatives:
                for word in words[at].split("|"):
                    yield [*words[:at], word, *words[at + 1 :]]


def find(words):
    """The command that words start with, its context, and the rest of them."""
    command: click.Command = main
    context = click.Context(main, info_name="lago-images", **main.context_settings)
    while isinstance(command, click.Group) and words:
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no command {words[0]!r}"
        context = click.Context(found, parent=context, info_name=words[0])
        command, words = found, words[1:]
    return command, context, words


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_usage_line(name):
    done = CliRunner().invoke(main, [*name.split(), "--help"], prog_name="lago-images")
    assert done.exit_code == 0, done.output
    assert "Usage: lago-images" in done.output
    assert "--repository" in done.output


@pytest.mark.parametrize("name", [*COMMANDS, "ci", "repo"])
def test_group_help_repeats_the_first_line_of_each_command(name):
    command, context, _ = find(name.split())
    group = context.parent.command
    stated = group.lazy[context.info_name].short_help
    assert command.help.partition("\n\n")[0].replace("\n", " ") == stated


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documented_commands_and_options_exist(document):
    for words in calls(document.read_text(encoding="utf-8")):
        command, context, rest = find(words)
        known = {name for p in command.get_params(context) for name in (*p.opts, *p.secondary_opts)}
        for word in rest:
            option = word.strip("[]()").split("=")[0]
            if option.startswith("--"):
                assert option in known, f"{document.name}: {' '.join(words)}: no {option}"


def test_options_in_the_table_of_commands_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `lago-images ([a-z -]+)` \|(.*)\|$", text, re.MULTILINE)
    assert len(rows) > 8
    for name, says in rows:
        assert name in COMMANDS
        command, context, _ = find(name.split())
        known = {option for p in command.get_params(context) for option in p.opts}
        assert set(re.findall(r"--[a-z-]+", says)) <= known, name


def test_the_reference_has_every_command_and_no_other():
    text = (ROOT / "docs/reference/commands.md").read_text("utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == COMMANDS


def test_the_reference_has_every_setting_and_no_other():
    text = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^(?:\| |## )`\[*([a-z-]+)\]*`(?: \||$)", text, re.MULTILINE))
    settings = {field.name.replace("_", "-") for field in dataclasses.fields(Settings)}
    # The start of paths and the source of each value are found out, not set.
    assert told == settings - {"folder", "origins", "lines"}


def test_the_readme_has_the_defaults_of_the_settings():
    """In words where code has nothing: what then counts is found out."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("\n## Settings\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*?) ?\| .* \|$", section, re.MULTILINE)
    assert len(rows) > 3
    found_out = {"name": f"`{DEFAULT_NAME}`", "base-url": "where `serve` listens"}
    for name, told in rows:
        default = getattr(Settings(), name.replace("-", "_"))
        shown = str(default) if isinstance(default, str) else json.dumps(default)
        assert told == found_out.get(name, f"`{shown}`" if shown else ""), name


@pytest.mark.parametrize("document", ["README.md", "docs/reference/settings.md"])
def test_a_setting_is_told_with_its_choices(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", text, re.MULTILINE))
    told = [field for field in CHOICES if field.replace("_", "-") in rows]
    assert told
    for field in told:
        says = rows[field.replace("_", "-")]
        assert all(f"`{word}`" in says for word in CHOICES[field]), field


def test_settings_in_the_examples_of_documents_are_valid(tmp_path):
    """What stands alone in a line, or in quotes, as ``name = value``."""
    known = "|".join(field.name.replace("_", "-") for field in dataclasses.fields(Settings))
    line = re.compile(rf"^(?:{known}) = [^\n`]*|(?<=`)(?:{known}) = [^`]*(?=`)", re.MULTILINE)
    found = 0
    for document in DOCUMENTS:
        for example in line.findall(document.read_text(encoding="utf-8")):
            if "…" not in example:
                (tmp_path / "lago-images.toml").write_text(f"{example}\n")
                load(tmp_path, {})
                found += 1
    assert found > 10


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_resolve(document):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_changelog_ends_its_unreleased_part_with_the_version_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    unreleased, *releases = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert unreleased == "[Unreleased]"
    dated = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", title) for title in releases]
    assert all(dated), releases
    assert dated[0][1] == project["version"]
    assert [match[2] for match in dated] == sorted((match[2] for match in dated), reverse=True)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= kinds


@pytest.mark.real
def test_the_readmes_s3_commands_publish(ceph20, tmp_path):
    need("git", "qemu-img")
    repo = SpecsRepo.create(tmp_path / "specs", ceph20.environ)
    repo.disk("one.img")
    repo.spec("one", "simple:one.img")
    repo.commit()
    text = (ROOT / "README.md").read_text("utf-8").split("## Publish to S3")[1]
    words = next(calls(text))
    place = f"s3://{ceph20.new_bucket()}/prefix"
    words = [place if word == "s3://bucket/prefix" else word for word in words]
    assert place in words
    first = repo.run(*words)
    assert (first.code, "one: released revision 1" in first.out) == (0, True), first.err
    assert "catalogue: https://images.example.org/index.html" in first.err
    second = repo.run(*words)
    assert (second.code, second.out) == (0, "nothing to build\n"), second.err


def block_with(document, words):
    """The fenced block of a document that has the words, without its indentation."""
    blocks = re.findall(r"^( *)```sh\n(.*?)^ *```$", document.read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (textwrap.dedent(text) for _, text in blocks if words in text)
    return found


def bash(folder, script):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {**os.environ, **IDENTITY, "PATH": path}
    subprocess.run(["bash", "-ec", script], cwd=folder, env=environ, check=True)


def test_the_readmes_first_steps_lead_to_an_image_to_build(tmp_path):
    """All but the doctor, whose answer is the host's, and the build, which others try."""
    need("git")
    block = block_with(ROOT / "README.md", "lago-images init").splitlines()
    heads = [" ".join(line.split()[:2]) for line in block]
    assert (heads[0], heads[-2:]) == (
        "lago-images doctor",
        ["lago-images build", "lago-images serve"],
    )
    bash(tmp_path, "\n".join(block[1:-2]))
    ran = SpecsRepo(root=tmp_path / "my-images").run("ci", "plan")
    assert (ran.code, "1 to build in 1 chain" in ran.out, ran.err) == (0, True, "")


def test_the_loop_over_a_folder_of_disks_writes_specs_without_problems(tmp_path):
    need("git")
    repo = SpecsRepo.create(tmp_path)
    for name in ("one", "two-2.1"):
        repo.disk(f"disks/{name}.qcow2")
    bash(tmp_path, block_with(ROOT / "docs/moving.md", "base=simple:$disk"))
    ran = repo.run("lint")
    assert (ran.code, ran.out + ran.err) == (0, "2 specs: no problems\n")


def test_every_test_that_the_threat_model_names_exists():
    """A "cannot" whose test was renamed or removed is a promise that nothing holds."""
    text = (ROOT / "docs/threat-model.md").read_text()
    named = re.findall(r"`(test_\w+\.py)`|`((?:test|check)_\w+)…?`", text)
    source = ""
    for file, name in named:
        if file:
            source = "".join(path.read_text() for path in (ROOT / "tests").rglob(file))
        else:
            assert f"def {name}" in source, name
    assert len([name for _, name in named if name]) > 25
    table = text[text.index("## Who can do what") : text.index("## Whose builds")]
    claims = [row.split(" | ")[2] for row in table.splitlines() if row.startswith("| ")][1:]
    assert len(claims) > 8
    assert all("`test_" in claim or claim.startswith("\N{EN DASH}") for claim in claims)


# What begins a word of a page or message, and is no part of the name of a setting.
_TCG = re.compile(r"(?<![\w_])TCG\b|\btcg\b(?!`)")


@pytest.mark.parametrize(
    "document",
    [*DOCUMENTS, *sorted((ROOT / "docs/decisions").glob("0*.md"))],
    ids=lambda document: document.name,
)
def test_a_page_says_what_tcg_is_where_it_has_it_first(document):
    text = document.read_text()
    if first := _TCG.search(text):
        assert "without KVM" in text[max(0, first.start() - 60) : first.end() + 30]


def test_each_message_says_what_tcg_is():
    """Any of them may be the first that a person sees."""
    texts = [
        node.value
        for path in sorted((ROOT / "lago_images").rglob("*.py"))
        for tree in [ast.parse(path.read_text())]
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if "TCG" in node.value and node.value not in _docstrings(tree)
    ]
    assert len(texts) > 2
    assert [text for text in texts if "without KVM" not in text] == []


def _docstrings(tree):
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = (node for node in ast.walk(tree) if isinstance(node, kinds) and node.body)
    return {ast.get_docstring(node, clean=False) for node in nodes}
