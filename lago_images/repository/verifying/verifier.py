"""Check a published repository as its clients see it, and the records behind it.

Over HTTP there is no listing: what ``index`` and ``repo.metadata`` name is checked, with the
headers it is served with. In a store the records are checked too, and that the rendered files are
what these render to.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

from lago_images.console import Advance, Console
from lago_images.errors import (
    CommandError,
    RepositoryError,
    SettingsError,
    SigningError,
    ToolMissingError,
    UsageError,
)
from lago_images.host.gpg import fingerprints, throw_away
from lago_images.host.process import Runner
from lago_images.host.threads import side_by_side
from lago_images.repository.publishing.key_change import left_behind
from lago_images.repository.publishing.retention import Retention
from lago_images.repository.records import layout
from lago_images.repository.records.layout import ImageId, owner
from lago_images.repository.records.presence import Presence, another, look
from lago_images.repository.records.reading import THREADS
from lago_images.repository.records.state import State
from lago_images.repository.rendering import client_setup
from lago_images.repository.rendering.index import Entry
from lago_images.repository.rendering.lago import Version
from lago_images.repository.rendering.render import render
from lago_images.repository.rendering.signing import open_signer
from lago_images.repository.rendering.site import PublicKey, Site, site_of
from lago_images.repository.verifying import builds, clients, signatures
from lago_images.repository.verifying import files as verify_files
from lago_images.repository.verifying import records as verify_records
from lago_images.repository.verifying.files import HeaderReader
from lago_images.repository.verifying.findings import (
    REFRESH,
    Finding,
    Report,
    Severity,
    Source,
    merged,
    note,
    problem,
)
from lago_images.repository.verifying.web import Web, base_url_problem
from lago_images.settings import Settings
from lago_images.storage.base import Store

_KEY_LINK = re.compile(rb"key-[0-9A-F]{40,64}\.asc")
_PAUSE = 3.0
_ATTEMPTS = 3
_OTHER_URL = "give the URL that has index and repo.metadata right below it, as base-url is"
_CHECK = f"check the path or URL; a repository has {layout.INDEX} and {layout.RELEASES} in it"
_NAME_AND_URL = "lago-images repo refresh, with the name and base-url that are meant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """Hold what every check needs.

    Attributes:
        settings: Of the specs repository; what is published must be in line with them.
        deep: Whether disks are read whole.
        now: Seconds since the epoch.
        pause: Waits before looking again whether a difference was a publication under way.
    """

    settings: Settings
    environ: Mapping[str, str]
    console: Console
    deep: bool
    now: float
    pause: Callable[[float], None] = time.sleep

    @property
    def runner(self) -> Runner:
        return Runner(environ=self.environ)

    def store(self, store: Store) -> Report:
        """Find all that is wrong with the repository in a store.

        Raises:
            StorageError: The store did not answer; nothing is concluded from that.
        """
        reader = HeaderReader(store=store)
        state, files, findings = self._consistent(reader)
        rendered = self._examined(files)
        revisions = {ImageId(entry.name, entry.arch): entry.revision for entry in rendered.entries}
        findings += verify_records.against_index(state, revisions)
        grace = Retention.of(self.settings).grace
        findings += verify_records.unfinished(store, self.now - grace)
        findings = verify_records.without_gc(state, findings)
        if layout.INDEX in files:
            base_url = self._site(files, store.url).base_url
            if finding := base_url_problem(store, base_url, self.environ):
                findings.append(finding)
        findings += self._other_keys(store)
        report = self._report(reader, rendered, findings, known=verify_records.images(state))
        return _with(report, verify_files.check_kept(reader.headers))

    def web(self, web: Web) -> Report:
        """Find all that is wrong with the repository at a URL; raises as ``store`` does.

        Raises ``UsageError`` where there is none.
        """
        attempt, denied = 1, dict[str, Finding]()
        # A publisher may be between two of its writes, or caches be of different ages.
        while True:
            files = self._published(web, denied)
            if not files and not denied:
                raise UsageError(f"there is no repository at {web.url}", hint=_OTHER_URL)
            rendered = self._examined(files)
            severities = {finding.severity for finding in rendered.findings}
            if Severity.PROBLEM not in severities or attempt == _ATTEMPTS:
                break
            self.pause(_PAUSE)
            attempt += 1
        elsewhere = verify_files.led_elsewhere(files, web.url)
        report = self._report(web, rendered, [*denied.values(), *elsewhere])
        return _with(report, verify_files.check(web.headers))

    def _published(self, web: Web, denied: dict[str, Finding]) -> dict[str, bytes]:
        """Return the rendered files, and the keys and signed indexes that they tell of.

        Notes of what the server denies go into ``denied``.
        """
        files = verify_files.fetch(web, layout.RENDERED, denied)
        files |= verify_files.fetch(web, verify_files.documents(files))
        more = {name.decode() for name in _KEY_LINK.findall(files.get(layout.CATALOGUE, b""))}
        if key := self._fingerprint(files.get(layout.KEY)):
            more.add(layout.key_file(key))
        # Over HTTP there is no listing: a signed index is known by its key alone.
        more |= {name.replace("key-", "index-") for name in more}
        return files | verify_files.fetch(web, more, denied)

    def _examined(self, files: Mapping[str, bytes]) -> "_Rendered":
        """Return what the rendered files say, and all that is wrong among them."""
        entries, versions, findings = verify_files.parse(files)
        findings += builds.agreement(entries, versions)
        listed, problems = verify_files.parse_sums(files)
        findings += [*problems, *(() if problems else builds.sums_agree(listed, versions))]
        findings += verify_files.documents_agree(listed, files)
        findings += signatures.check(
            files,
            self.environ,
            self.runner,
            empty=not entries,
            wanted=bool(self.settings.signing_key),
            now=self.now,
        )
        findings += clients.check(files, entries, self.runner)
        return _Rendered(entries=entries, versions=versions, sums=listed, findings=findings)

    def _other_keys(self, store: Store) -> Iterator[Finding]:
        """Note that the next publication will be refused for the keys that the settings have."""
        if not self.settings.signing_key:
            return
        # Whoever verifies need not have the keys, and damage is told by the signatures.
        with (
            suppress(SigningError, ToolMissingError, CommandError),
            open_signer(self.settings, self.environ, self.runner, is_tried=False) as signer,
        ):
            if error := left_behind(store, signer, self.environ):
                what = f"{error.message}: the next publication will be refused"
                yield note(layout.KEY, what, error.hint or "")

    def _report(
        self,
        source: Source,
        rendered: "_Rendered",
        more: Iterable[Finding],
        known: builds.Images | None = None,
    ) -> Report:
        named, strange = builds.named(rendered.entries, rendered.versions)
        findings = list[Finding]()
        progress = builds.Progress()
        with (
            self._progress(source, named, rendered.sums) as advance,
            # Two disks at once: hashing and decompressing use a core each.
            side_by_side(2 if self.deep else THREADS, "verify") as workers,
        ):
            progress.advance = advance if self.deep else None

            def check(build: builds.Named) -> list[Finding]:
                problems: list[Finding] = []
                build = builds.bound(source, build, problems, known=known)
                problems += builds.check(
                    source, build, rendered.sums, deep=self.deep, progress=progress
                )
                if not self.deep:
                    advance(1)
                return problems

            for problems in workers.map(check, named):
                findings += problems
        # The records tell of the same objects, of those too that are not offered.
        looked_at = {each.where for each in findings if owner(each.where)}
        others = (each for each in more if each.where not in looked_at)
        return Report(
            url=source.url,
            images=len(rendered.entries),
            versions=len(rendered.versions),
            read=progress.read,
            findings=merged([*others, *rendered.findings, *strange, *findings]),
        )

    def _progress(
        self, source: Source, named: tuple[builds.Named, ...], sums: Mapping[str, str]
    ) -> AbstractContextManager[Advance]:
        if not self.deep:
            return self.console.progress("checking builds", len(named), of="builds")
        with side_by_side(THREADS, "sizes") as workers:
            sizes = workers.map(lambda copy: builds.disk_size(source, copy, sums), named)
        return self.console.progress("reading disks", sum(sizes))

    def _consistent(self, reader: HeaderReader) -> tuple[State, dict[str, bytes], list[Finding]]:
        """Read records and rendered files, again while a publication may explain a difference."""
        store, attempt = reader.store, 1
        while True:
            names = {*layout.RENDERED, *client_setup.keyed(store), *verify_files.pages(store)}
            files = verify_files.fetch(reader, names)
            state, findings = verify_records.examine(store)
            stale = list(self._stale(state, files, store.url))
            if not stale or attempt == _ATTEMPTS:
                return state, files, [*findings, *stale]
            self.pause(_PAUSE)
            attempt += 1

    def _stale(self, state: State, files: Mapping[str, bytes], url: str) -> Iterator[Finding]:
        """Return the rendered files that are not what the records render to."""
        if not state.releases and layout.INDEX not in files:
            return
        site = self._site(files, url)
        keys = self._keys(files)
        rendered = render(state, site, keys)
        pages = {key: page.render() for key, page in rendered.pages.items()}
        for name, data in {**pages, **rendered.files}.items():
            if name in files and files[name] != data:
                yield problem(name, "it is not what the repository renders to", _NAME_AND_URL)
            elif name not in files:
                yield problem(name, "it is missing", REFRESH)

    def _site(self, files: Mapping[str, bytes], url: str) -> Site:
        """Return it as the settings say; where they say nothing, as it is published."""
        try:
            site = site_of(self.settings, url)
        except SettingsError:
            site = Site(name=self.settings.name, base_url="")
        try:
            published = client_setup.describe(files[layout.METADATA])
        except (KeyError, RepositoryError):
            return site
        return Site(
            name=site.name if self.settings.name else published.name,
            base_url=site.base_url if self.settings.base_url else "".join(published.bases[:1]),
        )

    def _keys(self, files: Mapping[str, bytes]) -> list[PublicKey]:
        """Return the published keys, that of ``index.asc`` first, the one new users get last."""
        if layout.KEY not in files:
            return []
        link = b"".join(_KEY_LINK.findall(files.get(layout.CATALOGUE, b""))[:1]).decode()
        names = sorted(
            (name for name in files if name.startswith("key-")),
            key=lambda name: (files[name] != files[layout.KEY], name == link, name),
        )
        keys = ((self._fingerprint(files[name]), files[name]) for name in names)
        return [PublicKey(fingerprint=key, armour=data) for key, data in keys if key]

    def _fingerprint(self, armour: bytes | None) -> str:
        """Return a key's fingerprint; empty where it is not one key, which others report."""
        if armour is None:
            return ""
        with throw_away(self.runner, self.environ) as gpg:
            try:
                keys = fingerprints(gpg, armour)
            except CommandError:
                return ""
        return keys[0] if len(keys) == 1 else ""


def refuse_missing(store: Store) -> None:
    """Raise ``UsageError`` where a store is a folder that does not exist: to it that is empty."""
    if store.folder is not None and not store.folder.exists():
        raise UsageError(f"there is no folder {store.folder}", hint=_CHECK)


def refuse_nothing(store: Store, *, is_named: bool, first: str) -> None:
    """Raise ``UsageError`` where a store has no repository at all.

    Args:
        store: Where it would be.
        is_named: Whether the call says where it is: then a path may be mistyped.
        first: How its first images are made.
    """
    if is_named:
        refuse_missing(store)
    found = look(store)
    if found is Presence.EMPTY:
        hint = f"check the path or URL; {first}" if is_named else first
        raise UsageError(f"nothing was ever published in {store.url}", hint=hint)
    if found is Presence.ANOTHER:
        what, hint = another(store.url)
        raise UsageError(what, hint=hint)
    if found is Presence.STRANGE:
        raise UsageError(f"there is no repository in {store.url}", hint=_CHECK)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rendered:
    """Hold what the rendered files say, and what is wrong among them."""

    entries: list[Entry]
    versions: list[Version]
    sums: Mapping[str, str]
    findings: list[Finding]


def _with(report: Report, more: Iterable[Finding]) -> Report:
    return Report(
        url=report.url,
        images=report.images,
        versions=report.versions,
        read=report.read,
        findings=merged([*report.findings, *more]),
    )
