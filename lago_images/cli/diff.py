"""``repo diff``: what changed from one build of an image to another."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from lago_images.cli.completion import published_names
from lago_images.cli.documents import FORMAT, document
from lago_images.cli.invocation import Invocation
from lago_images.cli.moments import minute
from lago_images.cli.tables import terminal_width
from lago_images.console import clean, human_size, wrapped
from lago_images.errors import UsageError
from lago_images.repository.browsing import queries
from lago_images.repository.browsing.documents import Comparison, Side
from lago_images.repository.records.boot_files import BootChanges
from lago_images.repository.records.changes import PackageChanges

# Characters of a commit or digest that are shown.
_SHORT = 12


@click.command()
@click.argument("name", shell_complete=published_names)
@click.argument("old", required=False, metavar="[A]")
@click.argument("new", required=False, metavar="[B]")
@click.option("--arch", default="", help="Of an image with several architectures.")
@FORMAT
@click.pass_obj
def diff(
    invocation: Invocation,
    name: str,
    old: str | None,
    new: str | None,
    arch: str,
    form: str,
) -> None:
    """Show what changed from one build of an image to another.

    Packages, size, properties and commands of the spec are compared, its base, and the files of
    /boot: kernels, initrds, the boot loader and its menu. A and B are revisions; or the folder of a
    build (with manifest.json, as try --keep writes it), or a list of packages as packages.txt has
    it. Without A and B the newest revision is compared with the one before it, with A alone A with
    the newest.
    """
    store, content = invocation.read_repository()
    image = queries.image_of(content, name, arch)
    if old is None or new is None:
        before, newest = queries.two_newest(content, image)
        if old is None and before is None:
            raise UsageError(
                f"{image} has one revision: nothing to compare it with",
                hint=f"lago-images try {name} --keep FOLDER, then "
                f"lago-images repo diff {name} {newest} FOLDER, compares it with a build here",
            )
        old, new = old or str(before), str(newest)
    # A number is a revision; a folder of that name is written ./3.
    sides = [
        queries.released_build(store, content, image, int(side))
        if side.isdecimal()
        else queries.local_build(_existing(side))
        for side in (old, new)
    ]
    compared = queries.difference(image, *sides)
    if form == "json":
        click.echo(document(compared))
    else:
        for line in _comparison_lines(compared):
            click.echo(line)


def _existing(path: str) -> Path:
    if not Path(path).exists():
        raise UsageError(
            f"{path} is neither a revision nor a file or folder",
            hint="a revision is a number, such as 3",
        )
    return Path(path)


def _comparison_lines(compared: Comparison) -> Iterator[str]:
    old, new, width = compared.old, compared.new, terminal_width()
    first = clean(f"{compared.name} ({compared.arch}): {old.source} → {new.source}")
    yield from wrapped(first, width, indent="  ")
    for label, was, now in _differing(old, new):
        yield from wrapped(clean(f"{label}: {was} → {now}"), width, indent="  ")
    if compared.is_other_base:
        yield from wrapped(clean(f"base: {_base(old)} → {_base(new)}"), width, indent="  ")
    for change in compared.properties or ():
        if change.old is None:
            text = f"new, {change.new!r}"
        else:
            text = "removed" if change.new is None else f"{change.old!r} → {change.new!r}"
        yield from wrapped(clean(f"property {change.name}: {text}"), width, indent="  ")
    yield from _command_lines(compared.commands, width)
    yield from _package_lines(compared.packages, width)
    yield from _boot_lines(compared.boot_files, width)


def _command_lines(changes: tuple[str, ...] | None, width: int | None) -> Iterator[str]:
    if changes is None:
        yield from wrapped("commands: those of one or both are not known", width, indent="  ")
        return
    added, removed = (sum(line[0] == sign for line in changes) for sign in "+-")
    counts = f"{added} added, {removed} removed" if changes else "the same"
    yield from wrapped(f"commands: {counts}", width, indent="  ")
    for line in changes:
        if line[0] == "@":
            yield f"  {line}"
        else:
            yield from _changed(line[0], line[1:], width)


def _package_lines(changes: PackageChanges | None, width: int | None) -> Iterator[str]:
    if changes is None:
        yield from wrapped("packages: those of one or both are not known", width, indent="  ")
        return
    listed = {
        "+": [f"{each.name} {each.version} {each.arch}" for each in changes.added],
        "-": [f"{each.name} {each.version} {each.arch}" for each in changes.removed],
        "~": [f"{each.name} {each.old} → {each.new}" for each in changes.upgraded],
    }
    yield from _listed("packages", "another version", listed, width)


def _boot_lines(changes: BootChanges | None, width: int | None) -> Iterator[str]:
    if changes is None:
        text = "boot files: those of one or both are not recorded"
        yield from wrapped(text, width, indent="  ")
        return
    listed = {
        "+": [f"{each.path} {human_size(each.size)}" for each in changes.added],
        "-": [f"{each.path} {human_size(each.size)}" for each in changes.removed],
        "~": [
            f"{each.path} {human_size(each.old_size)} → {human_size(each.new_size)}"
            for each in changes.changed
        ],
    }
    yield from _listed("boot files", "other content", listed, width)
    for path in changes.unread:
        text = clean(f"  {path} is not compared: in one of them it was not read")
        yield from wrapped(text, width, indent="    ")


def _listed(
    what: str, different: str, listed: Mapping[str, Sequence[str]], width: int | None
) -> Iterator[str]:
    """Yield how many entries were added, removed and changed, and each by its sign."""
    counts = "{} added, {} removed, {} with".format(*map(len, listed.values()))
    text = f"{counts} {different}" if any(listed.values()) else "the same"
    yield from wrapped(f"{what}: {text}", width, indent="  ")
    for sign, entries in listed.items():
        for entry in entries:
            yield from _changed(sign, entry, width)


def _changed(sign: str, text: str, width: int | None) -> Iterator[str]:
    # As unified diffs are coloured: click drops the colours where stdout is no terminal.
    colour = {"+": "green", "-": "red"}.get(sign)
    for line in wrapped(clean(f"  {sign} {text}"), width, indent="    "):
        yield click.style(line, fg=colour)


def _differing(old: Side, new: Side) -> Iterator[tuple[str, str, str]]:
    """Yield what both sides have, and differs: a label, the older and the newer value."""
    for label, was, now in (
        ("size", old.size, new.size),
        ("virtual size", old.virtual_size, new.virtual_size),
    ):
        if was is not None and now is not None and was != now:
            yield label, human_size(was), f"{human_size(now)} ({100 * (now - was) / was:+.1f} %)"
    if old.built and new.built and old.built != new.built:
        yield "built", minute(old.built), minute(new.built)
    if old.commit and new.commit and old.commit != new.commit:
        yield "commit", old.commit[:_SHORT], new.commit[:_SHORT]


def _base(side: Side) -> str:
    if side.base is None:
        return "not known"
    revision = f", revision {side.base.revision}" if side.base.revision else ""
    return f"{side.base.ref}{revision} ({side.base.digest[: _SHORT + len('sha256:')]}…)"
