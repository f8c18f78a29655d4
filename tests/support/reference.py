"""The pages of ``docs/reference``, made of the code that checks what they say.

``python -m tests.support.reference`` writes them anew.
"""

import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from lago_images import errors, settings
from lago_images.cli.main import main
from lago_images.cli.man import EXITS
from lago_images.repository.records import layout
from lago_images.specs.commands import COMMANDS, NEWER, OPTIONS, Reads
from lago_images.specs.properties import BOOTSTRAP_ONLY, KNOWN, REQUIRED
from lago_images.storage.directory.files import PRIVATE
from lago_images.storage.s3.probe import FOLDER as PROBE
from lago_images.storage.s3.safety import MEMORY
from tests.support.schemas import DOCUMENTS, PRINTED_BY, in_json

FOLDER = Path(__file__).parents[2] / "docs/reference"
_NOTE = "*For contributors: this page is made of the code, by `python -m tests.support.reference`.*"
_READS = {
    Reads.NOTHING: "",
    Reads.FILE: "the file",
    Reads.FILE_TO: "the file before the colon",
    Reads.TREE_TO: "the file or folder before the colon",
    Reads.SELECTOR: "FILE of `file:FILE`",
    Reads.USER_SELECTOR: "FILE of `file:FILE`",
}

_FILES = {
    "disk": "the compressed disk",
    "hash": "lago's: the SHA-1 of the disk",
    "metadata": "lago's: the spec's properties",
    "manifest": "our record of the build",
    "log": "the build's log",
}
_MORE = {
    "signing-key": "See [signing](../signing.md).",
    "promote": "See [whose builds are released](../ci.md#whose-builds-are-released).",
    "compression-level": "See [what it costs](../benchmarks.md#compression).",
    "publish-also": "See [plain disks](../plain-disks.md).",
    "engine": "See [what commands run in](../specs.md#what-commands-run-in).",
}
_STATE = {
    layout.PUBLISHED: "the last published commit",
    layout.CACHE: "what the releases and other records say that were read, by their ETags",
    layout.PAGES_CACHE: "what each page was rendered from",
    MEMORY: "in a bucket alone: how its store keeps conditional writes",
    PROBE: "in a bucket alone: small objects while that is found out",
    f"{PRIVATE}/": "in a directory alone: locks, and uploads that are under way",
}


def pages() -> dict[str, str]:
    """The text of each page by its name."""
    made = {
        "commands": _commands(),
        "specs": _specs(),
        "settings": _settings(),
        "exit-codes": _exit_codes(),
        "schemas": _schemas(),
        "layout": _layout(),
    }
    return {f"{name}.md": "\n".join((*lines, "", _NOTE)) + "\n" for name, lines in made.items()}


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    heads = tuple(heads)
    for row in (heads, ["---"] * len(heads), *rows):
        yield "| " + " | ".join(_cell(cell) for cell in row) + " |"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def _plain(text: str) -> str:
    """A docstring's line as Markdown."""
    return re.sub(r"\s+", " ", text.replace("``", "`")).strip()


def _commands() -> Iterator[str]:
    yield from ("# Commands", "")
    yield (
        "Every command takes the options that are named here first. "
        "`--help` shows the same, and so do the man pages."
    )
    yield ""
    ctx = click.Context(main, info_name="lago-images", **main.context_settings)
    commands = list(_commands_below(main, ctx))
    _, shared = _options(main, ctx)
    of_all = [row for row in shared if all(row in _options(*each)[1] for each in commands)]
    yield from _table(("option", "means"), of_all)
    yield from ("", "`lago-images` itself also takes:", "")
    yield from _table(("option", "means"), [row for row in shared if row not in of_all])
    for command, below in commands:
        yield from _command(command, below)


def _commands_below(
    group: click.Group, ctx: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    """The commands of a group and of the groups in it, in the order of its help."""
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        below = click.Context(command, parent=ctx, info_name=name)
        if isinstance(command, click.Group):
            yield from _commands_below(command, below)
        else:
            yield command, below


def _command(command: click.Command, ctx: click.Context) -> Iterator[str]:
    name = ctx.command_path.removeprefix("lago-images ")
    yield from ("", f"## {name}", "", "```text")
    yield " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)])
    yield "```"
    for paragraph in (command.help or "").split("\n\n"):
        yield from ("", _plain(paragraph.replace("\b", "")))
    own, _ = _options(command, ctx)
    if own:
        yield ""
        yield from _table(("option", "means"), own)
    if schemas := PRINTED_BY.get(name):
        links = ", or of a dry run ".join(f"[{each}](schemas.md)" for each in schemas)
        yield from ("", f"`--format json` prints a document of the schema {links}.")
    example = (command.epilog or "").rpartition("\n")[2].strip()
    yield from ("", "```sh", example, "```")


def _options(
    command: click.Command, ctx: click.Context
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The options of a command with what they mean: its own, and those of every command."""
    own, shared = [], []
    for option in command.get_params(ctx):
        record = option.get_help_record(ctx)
        if record:
            row = (f"`{record[0]}`", record[1])
            (own if option.expose_value else shared).append(row)
    return own, shared


def _specs() -> Iterator[str]:
    yield from ("# Properties and commands of specs", "")
    yield "[Writing a spec](../specs.md) says what each is for."
    yield from ("", "## Properties", "")
    rows = []
    for key, rule in KNOWN.items():
        notes = [f"required: {REQUIRED[key]}"] if key in REQUIRED else []
        notes += ["of a `bootstrap:` base only"] if key in BOOTSTRAP_ONLY else []
        rows.append((f"`{key}`", rule.must_be, "; ".join(notes)))
    yield from _table(("property", "must be", ""), rows)
    yield from (
        "",
        "Any other key goes into lago's `.metadata`, unless it is near to one of these.",
    )
    yield from ("", "## Commands", "")
    yield from _table(
        ("command", "argument", "reads from the repository", "up to guestfs-tools"),
        [
            (
                f"`{name}`",
                f"`{command.shape}`" if command.shape else "",
                _READS[command.reads],
                command.until,
            )
            for name, command in COMMANDS.items()
        ],
    )
    yield from ("", "## Commands of newer guestfs-tools", "")
    rows = [(f"`{name}`", since, do) for name, (since, do) in NEWER.items()]
    yield from _table(("command", "since", "instead"), rows)
    yield from ("", "## Options of virt-builder that are no commands of a spec", "")
    yield from _table(
        ("option", "because"), [(f"`--{name}`", why) for name, why in OPTIONS.items()]
    )


def _settings() -> Iterator[str]:
    yield from ("# Settings", "")
    yield (
        f"In `{settings.FILE}` beside `image-specs/`. The environment wins over the file, and "
        "options win over both. A path in the file or the environment starts at the file's folder, "
        "one on the command line where you are."
    )
    yield ""
    told = _attributes(settings.Settings)
    rows = []
    for field in dataclasses.fields(settings.Settings):
        if field.name in {"folder", "origins", "lines", "template_sources"}:
            continue
        name, default = field.name.replace("_", "-"), field.default
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        shown = str(list(default)) if isinstance(default, tuple) else shown
        least, most = settings.AT_LEAST.get(field.name), settings.AT_MOST.get(field.name)
        bounds = [f"at least {least}"] if least else []
        bounds += [f"at most {most}"] if most is not None else []
        rows.append(
            (
                f"`{name}`",
                f"`{settings.PREFIX}{field.name.upper()}`",
                f"`{shown}`" if shown else "",
                " ".join(
                    [
                        told[field.name],
                        *(f"{bound.capitalize()}." for bound in bounds),
                        _MORE.get(name, ""),
                    ]
                ),
            )
        )
    yield from _table(("setting", "variable", "default", "is"), rows)
    yield from ("", "## `[[template-sources]]`", "", told["template_sources"], "")
    yield from _table(
        ("key", "default"),
        [
            (field.name, "required" if field.default is dataclasses.MISSING else "empty")
            for field in dataclasses.fields(settings.TemplateSource)
        ],
    )
    yield from ("", _plain(inspect.getdoc(settings.TemplateSource) or ""))


def _attributes(kind: type) -> dict[str, str]:
    """What the docstring of a class says of each attribute."""
    text = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return {name: _plain(about) for name, about in entries}


def _exit_codes() -> Iterator[str]:
    yield from ("# Exit codes", "")
    yield from _table(("code", "means"), [(f"`{code}`", meaning) for code, meaning in EXITS])
    yield from (
        "",
        "## Failures",
        "",
        "Each is shown with what was being done, and what to do next.",
        "",
    )
    kinds = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.Error) and kind not in {errors.Error, errors.ProblemsError}
    ]
    kinds.sort(key=lambda kind: (kind.exit_code, kind.__name__))
    rows = [
        (f"`{kind.exit_code}`", _plain((inspect.getdoc(kind) or "").partition("\n\n")[0]))
        for kind in kinds
    ]
    yield from _table(("code", "when"), rows)
    yield from (
        "",
        (
            "The name of no spec, or of an image that was never published, is `2` to every "
            "command, which names those that are near. A pattern that no spec matches is `2`, too. "
            "A pattern, `--arch` or `--state` of `repo list` that nothing matches is `0`: it only "
            "chooses what is shown."
        ),
    )


def _schemas() -> Iterator[str]:
    yield from ("# JSON documents", "")
    yield (
        "Each document has `schema`, the number of its form: what has another number is another "
        "document. The schemas are JSON Schema 2020-12, here and in the package "
        "(`lago_images/schemas`)."
    )
    yield ""
    printed: dict[str, list[str]] = {}
    for command, names in PRINTED_BY.items():
        for name in names:
            printed.setdefault(name, []).append(f"[`{command}`](commands.md#{_anchor(command)})")
    rows = [
        (
            f"[{name}](../schemas/{name}.schema.json)",
            str(kind.SCHEMA),
            in_json(_plain((inspect.getdoc(kind) or "").partition("\n\n")[0])),
            ", ".join(printed.get(name, ["a file"])),
        )
        for name, kind in DOCUMENTS.items()
    ]
    yield from _table(("schema", "number", "what it is", "printed by"), rows)


def _anchor(heading: str) -> str:
    return heading.replace(" ", "-")


def _layout() -> Iterator[str]:
    yield from ("# Layout of a repository", "")
    yield "The same in a bucket and in a directory."
    key = layout.BuildKey(name="NAME", arch="ARCH", build_id="BUILD")
    for title, folder, about in (
        ("Staging", key.staging, "Written once by builders. Believed by nobody."),
        ("Public copies", key.public, "Written once by publishers, of the bytes that were judged."),
    ):
        yield from ("", f"## {title}", "", about, "")
        yield from _table(("key", "is"), _files(folder))
    yield from ("", "## Releases", "", "Created once.", "")
    release = layout.ReleaseKey(name="NAME", arch="ARCH", revision=1)
    outdated = layout.OutdatedKey(name="NAME", arch="ARCH", revision=1, number=1)
    yield from _table(
        ("key", "is"),
        [
            (f"`{release}`", "which bytes are public as this revision, or that one is withdrawn"),
            (
                f"`{key.public.retirement}`",
                "that a copy is offered no more, as `repo gc` removes it",
            ),
            (
                f"`{outdated}`",
                "what a build of its spec would get otherwise by now; the highest number counts",
            ),
            (
                f"`{layout.LossKey(name='NAME', arch='ARCH', first=1, last=2)}`",
                "that these records are lost for good, who accepted that, when and why",
            ),
        ],
    )
    yield from (
        "",
        "## Rendered files",
        "",
        "In the order in which they are written; pages side by side.",
        "",
    )
    image = layout.ImageId("NAME", "ARCH")
    names = [layout.page("NAME"), layout.image_feed("NAME"), layout.latest(image), *layout.RENDERED]
    names += [layout.signed_index("FINGERPRINT"), layout.key_file("FINGERPRINT")]
    rows = [(f"`{name}`", layout.headers(name)) for name in layout.in_writing_order(names)]
    yield from _table(
        ("key", "type", "caching"),
        [(name, headers.content_type, headers.cache_control) for name, headers in rows],
    )
    yield from ("", "## State", "")
    yield (
        "No client reads it. All but the first may be deleted while nothing writes the repository, "
        "and is made again."
    )
    yield ""
    yield from _table(("key", "is"), [(f"`{key}`", about) for key, about in _STATE.items()])


def _files(folder: layout.BuildFolder) -> Iterator[tuple[str, str]]:
    for name, member in inspect.getmembers(layout.BuildFolder):
        if not isinstance(member, property) or name in {"folder", "handle", "retirement"}:
            continue
        text = _FILES.get(name) or (member.__doc__ or "").partition("\n\n")[0]
        only_public = "in a public copy alone" in text
        if only_public and folder.root == layout.BUILDS:
            continue
        text = text.removeprefix("Return ").replace("; in a public copy alone", "").rstrip(".")
        yield f"`{getattr(folder, name)}`", _plain(text)
    for form in settings.FORMS:
        yield f"`{folder.also(form)}`", f"the disk as {form}, where `publish-also` asks for it"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for page, content in pages().items():
        (FOLDER / page).write_text(content, encoding="utf-8")
