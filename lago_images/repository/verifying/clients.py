"""Ask guestfs-tools' own readers what they see in the published index: a second opinion."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lago_images.errors import CommandError
from lago_images.host.process import Runner, search_path
from lago_images.repository.records import layout
from lago_images.repository.records.layout import ImageId
from lago_images.repository.rendering.index import Entry
from lago_images.repository.verifying.findings import REFRESH, Finding, note, problem

VALIDATOR = "virt-index-validate"
CLIENT = "virt-builder"


def check(
    files: Mapping[str, bytes], entries: Sequence[Entry], runner: Runner
) -> Iterator[Finding]:
    """Ask ``virt-index-validate`` and ``virt-builder``, as far as they are installed."""
    with tempfile.TemporaryDirectory(prefix="lago-images-") as name:
        folder = Path(name)
        for key, data in files.items():
            if "/" not in key:
                (folder / key).write_bytes(data)
        path = search_path(runner.environ)
        for program, ask in ((VALIDATOR, _validate), (CLIENT, _list)):
            if shutil.which(program, path=path) is None:
                yield note(layout.INDEX, f"{program} is not installed: it was not asked")
            elif layout.INDEX in files:
                yield from ask(folder, files, entries, runner)


def _validate(
    folder: Path, _files: Mapping[str, bytes], _entries: Sequence[Entry], runner: Runner
) -> Iterator[Finding]:
    # It reads the text as virt-builder's parser does, and knows neither signatures nor disks.
    try:
        runner.capture([VALIDATOR, str(folder / layout.INDEX)])
    except CommandError as error:
        yield problem(layout.INDEX, f"{VALIDATOR}: {_last_words(error)}", REFRESH)


def _list(
    folder: Path, files: Mapping[str, bytes], entries: Sequence[Entry], runner: Runner
) -> Iterator[Finding]:
    yield from _listed(folder, layout.INDEX, "", entries, runner)
    # A signed index without images is valid, and refused by newer clients: nobody lists it.
    for name in sorted(files) if entries else ():
        if name == layout.SIGNED_INDEX and layout.KEY in files:
            yield from _listed(folder, name, layout.KEY, entries, runner)
        elif name.startswith("index-") and (key := name.replace("index-", "key-")) in files:
            yield from _listed(folder, name, key, entries, runner)


def _listed(
    folder: Path, name: str, key: str, entries: Sequence[Entry], runner: Runner
) -> Iterator[Finding]:
    home = folder / f"home-{name}"
    sources = home / "config" / CLIENT / "repos.d"
    sources.mkdir(parents=True)
    lines = [
        f"[r]\nuri=file://{folder / name}",
        # Without a gpgkey virt-builder takes a source unsigned.
        *([f"gpgkey=file://{folder / key}"] if key else []),
    ]
    (sources / "r.conf").write_text("\n".join(lines) + "\n")
    env = {
        "HOME": str(home),
        "GNUPGHOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
        # In place of /etc: or else virt-builder asks the sources it came with too.
        "VIRT_BUILDER_DIRS": str(home / "none"),
    }
    argv = [CLIENT, "--no-cache", "--list", "--list-format", "json"]
    # gpg warns of a home that others may read.
    home.chmod(0o700)
    try:
        listed = json.loads(runner.capture(argv, env=env))["templates"]
    except CommandError as error:
        yield problem(name, f"{CLIENT}: {_last_words(error)}", REFRESH)
        return
    offered = {ImageId(template["os-version"], template["arch"]) for template in listed}
    # virt-builder lists no hidden images (`builder/list_entries.ml`), and builds them by name.
    wanted = {ImageId(entry.name, entry.arch) for entry in entries if entry.get("hidden") != "true"}
    missing = sorted(map(str, wanted - offered))
    if missing:
        yield problem(name, f"{CLIENT} does not list {', '.join(missing)}", REFRESH)


def _last_words(error: CommandError) -> str:
    return " ".join(" ".join(error.tail).split()) or error.message
