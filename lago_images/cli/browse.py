"""``repo list``, ``show`` and ``log``: look at what is published."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import click

from lago_images.cli.completion import published_names
from lago_images.cli.documents import FORMAT, document
from lago_images.cli.invocation import Invocation, finish
from lago_images.cli.moments import age, minute
from lago_images.cli.tables import table, terminal_width
from lago_images.cli.values import EVENTS, REVISION
from lago_images.console import clean, counted, first_of, human_size, wrapped
from lago_images.errors import Error, UsageError
from lago_images.repository.browsing import queries
from lago_images.repository.browsing.documents import (
    ImagePage,
    ImageState,
    Listing,
    LogEntry,
    Revision,
)
from lago_images.repository.records.layout import ImageId
from lago_images.repository.records.log import EventKind
from lago_images.repository.records.release import NO_COMMIT, PackageDiff
from lago_images.repository.records.state import State
from lago_images.repository.rendering.relatives import Relative
from lago_images.specs.boot_check import boot_check

_SHORT = 12
_LABEL = 18
# A terminal of fewer columns has a fact below its label.
_NARROW = 48
# Packages that a line of what changed names.
_SHOWN = 5
_COLOURS = {EventKind.WITHDRAWN: "red", EventKind.ROLLED_BACK: "yellow"}
_ARCH = click.option("--arch", default="", help="Of an image with several architectures.")
_STATES = {
    "current": (ImageState.CURRENT,),
    "withdrawn": (ImageState.WITHDRAWN,),
    "any": tuple(ImageState),
}


def _refuse_places(
    ctx: click.Context, param: click.Parameter, value: str | tuple[str, ...] | None
) -> str | tuple[str, ...] | None:
    """Refuse a repository where images are named; raises ``UsageError``."""
    del param
    for name in value if isinstance(value, tuple) else (value or "",):
        if "/" in name:
            raise UsageError(
                f"{name} is not the name of an image: names have no /",
                hint=f"a repository is named by an option: {ctx.command_path} --repository {name}",
            )
    return value


@click.command("list")
@click.argument(
    "patterns",
    nargs=-1,
    metavar="[NAME…]",
    shell_complete=published_names,
    callback=_refuse_places,
)
@click.option("--arch", default="", help="Only images of this architecture.")
@click.option(
    "--state",
    type=click.Choice(list(_STATES)),
    default="current",
    show_default=True,
    help="What clients get; or the newest revision that is withdrawn; or the newest of all.",
)
@click.option("--all", "all_", is_flag=True, help="Older revisions that are still offered, too.")
@click.option(
    "--outdated",
    is_flag=True,
    help="Also how many packages have another version in a newer image of the same system here; "
    "and, where its spec is checked out, what a build would get from outside today.",
)
@FORMAT
@click.pass_obj
def list_(
    invocation: Invocation,
    patterns: tuple[str, ...],
    arch: str,
    state: str,
    all_: bool,
    outdated: bool,
    form: str,
) -> None:
    """List what is published.

    All images, or those whose name is one of NAMEs, which may have * and ? as shells have them. A
    pattern, or another choice, that leaves nothing ends with 0; a name that was never published is
    wrong usage.
    """
    store, content = invocation.read_repository()
    states = _STATES[state]
    if all_ and state == "current":
        states = (ImageState.CURRENT, ImageState.OFFERED)
    listed = queries.listing(
        content, store.url, patterns=patterns, arch=arch, states=states, every=all_
    )
    queries.refuse_unknown(content, patterns)
    for pattern, hint in queries.unmatched(content, patterns):
        invocation.console.warn(f"no image that was ever published matches {pattern}: {hint}")
    if not listed.images and (why := queries.why_nothing(content, patterns, arch)):
        invocation.console.warn(why)
    if outdated:
        listed = queries.with_outdated(listed, content, store)
        listed = _with_upstream(invocation, listed, content)
    if form == "json":
        click.echo(document(listed))
    else:
        more = {"state": _state} if state != "current" else {}
        more |= {"older here": _outdated} if outdated else {}
        more |= {"a build today": _today} if any(each.upstream for each in listed.images) else {}
        for line in _list_lines(listed, more, time.time()):
            click.echo(line)
    finish(succeeded=not content.damaged_unaccepted)


def _outdated(revision: Revision) -> str:
    if revision.outdated is None:
        return "not known"
    return f"{revision.outdated} of {revision.packages}"


def _with_upstream(invocation: Invocation, listed: Listing, content: State) -> Listing:
    """Add what builds would get today; without specs here there is nobody to ask."""
    if not invocation.has_specs:
        return listed
    # They import what prepares bases.
    from lago_images.jobs import plan as plan_job  # noqa: PLC0415

    try:
        found = plan_job.find_outdated(invocation.workspace(), content)
    except Error as error:
        invocation.console.warn(f"what builds would get today is not known: {error.message}")
        return listed
    images = (
        replace(each, upstream=found.get(ImageId(each.name, each.arch)))
        if each.state is ImageState.CURRENT
        else each
        for each in listed.images
    )
    return replace(listed, images=tuple(images))


def _today(revision: Revision) -> str:
    upstream = revision.upstream
    if upstream is None:
        return ""
    changed = upstream.packages
    count = changed.lines().count if changed else 0
    said = [
        *(["another base"] if upstream.base else ()),
        *([counted(count, "other package")] if count else ()),
    ]
    return ", ".join(said) or ("not known" if upstream.unknown else "the same")


def _list_lines(
    listed: Listing, more: Mapping[str, Callable[[Revision], str]], now: float
) -> Iterator[str]:
    """Yield the list as a table; ``more`` are its last columns."""
    heads = ["name", "arch", "revision", "version", "published", "built", "size"]
    heads += ["fingerprint", "commit", *more]
    rows = [
        (
            each.name,
            each.arch,
            str(each.revision),
            each.version,
            minute(each.published),
            f"{age(each.built, now)} ago",
            human_size(each.disk.compressed_size),
            each.fingerprint.removeprefix("sha256:")[:_SHORT],
            _commit(each),
            *(column(each) for column in more.values()),
        )
        for each in listed.images
    ]
    # On 80 columns what people look for stays: the name, how old it is, the size.
    spare = ("fingerprint", "commit", "version", "published", "arch")
    yield from table(heads, rows, width=terminal_width(), spare=spare)


@click.command()
@click.argument("name", shell_complete=published_names, callback=_refuse_places)
@_ARCH
@click.option("--revision", type=REVISION, help="By default the newest one offered.")
@FORMAT
@click.pass_obj
def show(invocation: Invocation, name: str, arch: str, revision: int | None, form: str) -> None:
    """Show all that is known of an image.

    Its revisions with who released them and why one was withdrawn; and of one revision the build,
    base, boot test, properties, checksums and URLs, and the commands that get it.
    """
    store, content = invocation.read_repository()
    image = queries.image_of(content, name, arch)
    page = queries.page(store, content, image)
    chosen = _chosen(page, revision)
    if form == "json":
        click.echo(document(page))
    else:
        for line in _page_lines(page, chosen, time.time(), invocation.completed):
            click.echo(line)


def _chosen(page: ImagePage, revision: int | None) -> Revision | None:
    if revision is None:
        return page.main
    wanted = (each for each in page.revisions if each.revision == revision)
    if (chosen := next(wanted, None)) is None:
        raise UsageError(
            f"{page.name} has no revision {revision} with a build",
            hint=f"lago-images repo log {page.name} shows what its revisions are",
        )
    return chosen


def _page_lines(
    page: ImagePage, chosen: Revision | None, now: float, completed: Callable[[str], str]
) -> Iterator[str]:
    width = terminal_width()
    title = clean(page.properties.get("name", ""))
    text = f"{page.name} ({page.arch})" + (f": {title}" if title else "")
    yield from wrapped(text, width, indent="  ")
    if chosen is None:
        yield "it has no revision with a build"
        return
    yield ""
    for label, text in _facts(page, chosen, now):
        yield from _labelled(label, completed(text), width)
    yield from _tree_lines(page, chosen, width)
    used = _main(page, chosen)
    if page.main and page.main.state is ImageState.CURRENT and chosen is not page.main:
        used += ", which clients get"
    yield from _section("properties of its spec" if used == "it" else f"properties of {used}")
    for key, value in sorted(page.properties.items()):
        yield from _labelled(key, value, width)
    yield from _section("checksums")
    for label, digest in _digests(chosen):
        yield from _labelled(label, digest, width)
    yield from _section("files")
    # By the URL that clients use, once one is published: a bucket's own is for who has its keys.
    root = page.base_url or page.repository
    for file, facts in sorted(chosen.objects.items()):
        text = clean(f"  {root}/{chosen.folder}{file}  {human_size(facts.size)}")
        yield from wrapped(text, width, indent="    ")
    yield from _section("revisions")
    yield from _revision_lines(page.revisions, width)
    for each in page.use:
        yield from _section(clean(f"how to use {used}: {each.title}"))
        yield from wrapped(clean(each.about), width)
        # From the first column on: END of a here-document is to be found there.
        yield from map(clean, each.text.splitlines())


def _tree_lines(page: ImagePage, chosen: Revision, width: int | None) -> Iterator[str]:
    """Yield what the image stands on, and what stands on it, each below what it is built on."""
    yield from _section(f"what {_main(page, chosen)} is built on")
    for depth, base in enumerate(page.bases):
        yield from _relative_lines(base, depth, width)
    if page.layers:
        yield from _section("what is built on it")
        for layer in page.layers:
            yield from _relative_lines(layer, 0, width)


def _main(page: ImagePage, chosen: Revision) -> str:
    """Return what the page is about where it is not about the chosen revision: its main one."""
    main = page.main
    return "it" if main is None or main is chosen else f"revision {main.revision}"


def _relative_lines(shown: Relative, depth: int, width: int | None) -> Iterator[str]:
    revision = f"revision {shown.revision}" if shown.revision else ""
    facts = ", ".join(fact for fact in (revision, shown.note) if fact)
    indent = "  " * (depth + 1)
    text = clean(f"{indent}{shown.name}" + (f" ({facts})" if facts else ""))
    yield from wrapped(text, width, indent=f"{indent}    ")
    for layer in shown.layers:
        yield from _relative_lines(layer, depth + 1, width)


def _digests(chosen: Revision) -> Iterator[tuple[str, str]]:
    disk = chosen.disk
    yield "sha256 of the .xz", disk.sha256
    yield "sha512 of the .xz", disk.sha512
    yield "sha1 of the disk", disk.sha1
    if disk.plain_sha256:
        yield "sha256 of the disk", disk.plain_sha256
    for form, also in sorted(chosen.also.items()):
        yield f"sha256 of the {form}", also.sha256


def _commit(revision: Revision) -> str:
    """Return a commit in short, with a ``+`` for files that were not committed."""
    return revision.commit[:_SHORT] + "+" * revision.dirty


def _whole_commit(shown: Revision | LogEntry) -> str:
    return shown.commit + (", and files that were not committed" if shown.dirty else "")


def _facts(page: ImagePage, chosen: Revision, now: float) -> Iterator[tuple[str, str]]:
    yield "revision", f"{chosen.revision}, {_state(chosen)}"
    newest = page.revisions[0]
    if newest.revision > chosen.revision:
        yield "newest", f"revision {newest.revision}, {_state(newest)}"
    yield "version for lago", chosen.version
    yield "built", f"{minute(chosen.built)} ({age(chosen.built, now)} old), build {chosen.build}"
    by = f" by {chosen.actor}" if chosen.actor else ""
    yield "published", f"{minute(chosen.published)}{by}"
    if chosen.run:
        yield "run", chosen.run
    yield "commit", _whole_commit(chosen)
    base = chosen.base
    standing = f", revision {base.revision}" if base.revision else ""
    yield "base", f"{base.ref}{standing}" + (f" ({base.detail})" if base.detail else "")
    sizes = (chosen.disk.compressed_size, chosen.disk.size, chosen.disk.virtual_size)
    compressed, whole, virtual = map(human_size, sizes)
    yield "size", f"{compressed} to download, {whole} as a file, {virtual} for the guest"
    for form, also in sorted(chosen.also.items()):
        yield f"as {form}", f"{human_size(also.size)} to download"
    yield "packages", "not known" if chosen.packages is None else str(chosen.packages)
    if changes := chosen.package_changes:
        yield "changes", _package_changes(page.name, chosen.revision, changes)
    if (found := chosen.recorded) and found.since is not None:
        yield "outdated", f"since {minute(found.since)}: {found.summary(_SHOWN)}"
    yield "boot test", str(chosen.boot or _why_not_booted(page, chosen))
    if chosen.boot and chosen.boot.checks:
        yield "judged by it", ", ".join(chosen.boot.checks)
    if chosen.access:
        yield "log in", "; ".join(chosen.access.texts)
    yield "fingerprint", chosen.fingerprint


def _why_not_booted(page: ImagePage, chosen: Revision) -> str:
    """Return that there was no boot test, with the reason where its properties are at hand."""
    # The page has the properties of its main revision.
    reason = boot_check(page.properties).reason if chosen is page.main else ""
    return f"none: {reason}" if reason else "none"


def _package_changes(name: str, revision: int, changes: PackageDiff) -> str:
    count = changes.count
    listed = f": {first_of(changes.texts, _SHOWN, count)}" if count else ""
    return (
        f"{counted(count, 'package')} since revision {changes.since}{listed}; "
        f"lago-images repo diff {name} {changes.since} {revision}"
    )


def _revision_lines(revisions: Sequence[Revision], width: int | None) -> Iterator[str]:
    heads = ("revision", "built", "published", "by", "commit", "size", "state")
    rows = [
        (
            str(each.revision),
            minute(each.built),
            minute(each.published),
            each.actor,
            _commit(each),
            human_size(each.disk.compressed_size),
            _state(each),
        )
        for each in revisions
    ]
    inner = None if width is None else width - 2
    yield from (f"  {line}" for line in table(heads, rows, width=inner, spare=("built", "by")))


@click.command()
@click.argument("name", required=False, shell_complete=published_names, callback=_refuse_places)
@_ARCH
@click.option("-n", "--most", type=EVENTS, metavar="N", help="The newest N events.")
@FORMAT
@click.pass_obj
def log(invocation: Invocation, name: str | None, arch: str, most: int | None, form: str) -> None:
    """Show who released, withdrew and rolled back what, the newest event first.

    Of all images, or of NAME; with the commit and the CI's run that did it, and the reason.
    """
    store, content = invocation.read_repository()
    images = (
        [queries.image_of(content, name, arch)]
        if name
        else [image for image in content.images if arch in ("", image.arch)]
    )
    history = queries.log(content, store.url, images, most=most)
    if form == "json":
        click.echo(document(history))
        return
    width = terminal_width()
    for entry in history.events:
        for line in _entry_lines(entry, width):
            click.echo(line)


def _entry_lines(entry: LogEntry, width: int | None) -> Iterator[str]:
    action = {
        EventKind.RELEASED: f"released revision {entry.about}",
        EventKind.WITHDRAWN: f"withdrew revision {entry.about}",
        EventKind.ROLLED_BACK: f"rolled back to revision {entry.about}, as {entry.revision}",
    }[entry.kind]
    by = f" by {entry.actor}" if entry.actor else ""
    first = clean(f"{minute(entry.published)}  {entry.name} ({entry.arch}): {action}{by}")
    first, *more = wrapped(first, width, indent="    ")
    yield click.style(first, fg=_COLOURS.get(entry.kind))
    yield from more
    if entry.reason:
        yield from wrapped(clean(f"    reason: {entry.reason}"), width, indent="      ")
    # An operator may withdraw from anywhere; of what is published the list has a commit, too.
    what = "checked out" if entry.kind is EventKind.WITHDRAWN else "commit"
    if entry.commit != NO_COMMIT or entry.kind is not EventKind.WITHDRAWN:
        yield from wrapped(clean(f"    {what}: {_whole_commit(entry)}"), width, indent="      ")
    if entry.run:
        yield clean(f"    run: {entry.run}")


def _labelled(label: str, text: str, width: int | None) -> Iterator[str]:
    start = f"  {label:<{_LABEL}}  "
    text = clean(text)
    if width is None:
        yield f"{start}{text}".rstrip()
        return
    rest = width - len(start)
    if width < _NARROW or max(map(len, text.split()), default=0) > rest:
        yield f"  {label}"
        yield from (f"    {part}" for part in wrapped(text, width - 4))
        return
    first, *more = wrapped(text, rest) or [""]
    yield f"{start}{first}".rstrip()
    yield from (" " * len(start) + part for part in more)


def _section(title: str) -> Iterator[str]:
    yield ""
    yield click.style(title, bold=True)


def _state(revision: Revision) -> str:
    return f"{revision.state}: {revision.reason}" if revision.reason else str(revision.state)
