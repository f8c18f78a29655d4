"""Render what is public into a store that was found safe, with keys that were found to sign.

ETags are read first, the repository is listed second, and what differs is written on condition of
the ETags third; whoever is overtaken starts over. So publishers at once lose nothing, without a
lock.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from lago_images.console import Console
from lago_images.errors import (
    ConflictError,
    NotFoundError,
    RepositoryError,
    SettingsError,
)
from lago_images.host.process import Runner
from lago_images.host.retry import RetryPolicy
from lago_images.host.threads import side_by_side
from lago_images.repository.publishing.author import NOBODY, Author, author_of
from lago_images.repository.publishing.key_change import (
    Fingerprint,
    half_retired,
    refuse_key_change,
)
from lago_images.repository.publishing.pages import PublishedPages, read_pages, write_pages
from lago_images.repository.records import layout
from lago_images.repository.records.layout import (
    RENDERED,
    headers,
    in_writing_order,
    key_behind,
)
from lago_images.repository.records.presence import names_others
from lago_images.repository.records.release import OldRepositoryError
from lago_images.repository.records.state import State, read
from lago_images.repository.rendering import client_setup
from lago_images.repository.rendering.render import Rendered, is_empty, render
from lago_images.repository.rendering.signing import (
    Signer,
    SigningKey,
    key_fingerprint,
    open_signer,
)
from lago_images.repository.rendering.site import (
    DEFAULT_BASE_URL,
    DEFAULT_NAME,
    Site,
    site_of,
)
from lago_images.settings import FILE, Settings
from lago_images.storage.base import Blob, Store

ATTEMPTS = 100
_RETRY = RetryPolicy(attempts=ATTEMPTS, delay=0.02, longest=1.0, jitter=1.0)
Pause = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """The rendered files before a refresh: pages as they were listed, all others as read."""

    files: Mapping[str, Blob]
    pages: PublishedPages


_NOTHING = Before(files={}, pages=PublishedPages(etags={}, inputs={}, cache=None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """Hold what a refresh read and wrote. ``attempts`` counts from 1."""

    state: State
    written: tuple[str, ...]
    deleted: tuple[str, ...]
    attempts: int


def pause(attempt: int) -> None:
    """Wait before starting over: longer each time, and never in step with another publisher."""
    _RETRY.wait(attempt + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """Renders a repository; ``publishing`` opens one.

    Attributes:
        store: The repository.
        site: Its name and URL.
        signer: The keys that sign.
        fingerprint: Tells that of a published key.
        retire: Fingerprints of keys that no longer sign: what they signed is deleted.
        now: Tells the time, in seconds since the epoch.
        author: Who releases, as every release records.
        before: The rendered files as they were when the publisher was opened, which saves reading
            them again: what was written since makes ``refresh`` start over.
    """

    store: Store
    site: Site
    signer: Signer
    fingerprint: Fingerprint
    retire: frozenset[str]
    now: Callable[[], float]
    author: Author = NOBODY
    before: "Before | None" = None

    def refresh(self, *, wait: Pause = pause, recheck: bool = False) -> Refreshed:
        """Bring the rendered files in line with what is in the repository.

        Args:
            wait: Called with the number of the attempt before it starts over.
            recheck: Compare every page with what it should be, and not only those that are not
                known to be right: somebody may have changed one, or lost its headers.

        Raises:
            SigningError: Clients of a published key would be left with a stale index.
            RepositoryError: Other publishers were faster, every time.
        """
        before = self.before
        for attempt in range(ATTEMPTS):
            # Before the list: whatever is rendered from now on changes an ETag, and so a write of
            # ours, of what is listed below, cannot replace what somebody rendered of a later list.
            if before is None or attempt:
                before = _read_before(self.store, self.signer)
            refuse_key_change(before.files, self.signer, self.fingerprint, self.retire)
            if recheck:
                before = replace(before, pages=before.pages.forgetful())
            # First: a key whose file is missing is being retired, whoever comes to finish that.
            key_files = [name for name in before.files if name.startswith("key-")]
            self.store.delete([name for name in key_files if key_behind(name) in self.retire])
            state = read(self.store)
            try:
                written = tuple(_write(self.store, before, state, self.site, self.signer))
            except ConflictError:
                wait(attempt)
                continue
            retire = self.retire | half_retired(before.files, self.signer, self.fingerprint)
            # Last: until all is written, whoever trusts such a key has an index, if an old one.
            deleted = _delete_signed(self.store, before.files, self.signer, retire)
            return Refreshed(state=state, written=written, deleted=deleted, attempts=attempt + 1)
        raise RepositoryError(
            f"the rendered files in {self.store.url} were changed by others {ATTEMPTS} times in a "
            "row",
            hint="run lago-images repo refresh when fewer publishers are at work",
        )

    def is_rendered(self, state: State) -> bool:
        """Return whether the rendered files, as they were found, are what ``state`` renders to."""
        if self.retire:
            return False
        rendered = render(state, self.site, self.signer.public)
        before = self.before or _NOTHING
        return not before.pages.due(rendered.pages) and not _due(
            before.files, state, rendered, self.signer
        )


@contextmanager
def publishing(
    store: Store,
    settings: Settings,
    *,
    console: Console,
    environ: Mapping[str, str],
    now: Callable[[], float],
    retire: frozenset[str] = frozenset(),
    is_told: bool = False,
) -> Iterator[Publisher]:
    """Open a publisher, once the settings, the store and the signing keys have proven themselves.

    A name and URL that were published stay where the settings say none. Unless it ``is_told``
    already, what changes of them is said, and what stays.

    Raises:
        SettingsError: What the settings say of the repository cannot be published.
        RepositoryError: What is there is of another program, or of an older lago-images.
        UnsafeStoreError: The store does not keep conditional writes.
        SigningError: A key cannot sign, or a published key's clients would be left behind.
    """
    runner = Runner(environ=environ)

    def fingerprint(armour: bytes) -> str:
        return key_fingerprint(armour, environ, runner)

    with open_signer(settings, environ, runner) as signer:
        before = _read_before(store, signer)
        published = _described(before.files.get(layout.METADATA), settings, store.url)
        site = site_of(_without_defaults(settings, published), store.url)
        if index := before.files.get(layout.INDEX):
            _refuse_strange(store, index)
        refuse_key_change(before.files, signer, fingerprint, retire)
        if not is_told:
            _tell_settings(before.files, site, settings, console)
        # Last, as a probe writes: what is refused above has touched nothing.
        store.ensure_safe_writes(single_writer=settings.single_writer, console=console)
        yield Publisher(
            store=store,
            site=site,
            signer=signer,
            fingerprint=fingerprint,
            retire=retire,
            now=now,
            author=author_of(environ),
            before=before,
        )


def as_published(store: Store, settings: Settings) -> Settings:
    """Return settings with the name and URL that a repository's clients were given.

    Where it says none, or what cannot be one, they are as they were.
    """
    try:
        return _described(store.get(layout.METADATA), settings, store.url)
    except NotFoundError:
        return settings


def to_publish(store: Store, settings: Settings) -> Settings:
    """Return settings with the name and URL that the next publication has.

    A default replaces none that were published: it would send all clients elsewhere, which nobody
    asked for.
    """
    return _without_defaults(settings, as_published(store, settings))


def _described(metadata: Blob | None, settings: Settings, store_url: str) -> Settings:
    try:
        view = client_setup.describe(metadata.data if metadata else b"")
        published = replace(settings, name=view.name, base_url="".join(view.bases[:1]))
        site_of(published, store_url)
    except (RepositoryError, SettingsError):
        return settings
    return published


def _without_defaults(settings: Settings, published: Settings) -> Settings:
    return replace(
        settings,
        name=settings.name if settings.name.strip() else published.name,
        base_url=settings.base_url or published.base_url,
    )


def _refuse_strange(store: Store, index: Blob) -> None:
    """Refuse an index of an older lago-images, or of another program where nothing was released.

    One of ours that was damaged since is rendered anew, whatever it says.
    """
    # The layout before led clients to where builders write.
    if f"\nfile={layout.BUILDS}".encode() in index.data:
        raise OldRepositoryError(f"the published {layout.INDEX}")
    if names_others(index.data) and next(store.list(layout.RELEASES), None) is None:
        raise RepositoryError(
            f"{store.url} has an {layout.INDEX} of another program, whose images clients "
            "would lose",
            hint="publish to another place, an empty folder or prefix; or delete that index, "
            "where nobody needs it",
        )


def _tell_settings(
    before: Mapping[str, Blob], site: Site, settings: Settings, console: Console
) -> None:
    """Warn of a published name or URL that changes, as clients of lago go where these say.

    Also say which is kept, where the default is another.
    """
    # One that is damaged is rendered anew, whatever it said.
    with suppress(KeyError, ValueError, TypeError, AttributeError):
        plain = json.loads(before[layout.METADATA].data)
        urls = [source["args"]["baseurl"] for source in plain["sources"].values()]
        for setting, old, new, chosen, default in (
            ("name", plain["name"], site.name, settings.name.strip(), DEFAULT_NAME),
            *(("base-url", url, site.base_url, settings.base_url, DEFAULT_BASE_URL)
              for url in urls[:1]),
        ):  # fmt: skip
            origin = settings.origins.get(setting.replace("-", "_"), FILE)
            if old != new:
                says = f"{new!r}, as {origin} says" if chosen else f"the default {new!r}"
                console.warn(f"the published {setting} {old!r} becomes {says}")
            elif not chosen and old != default:
                console.info(
                    f"the published {setting} {old!r} is kept: no file, variable or option says "
                    "another"
                )


def _read_before(store: Store, signer: Signer) -> Before:
    """Read the rendered files as they are now; those that are missing are left out."""
    # Listed, not derived: the files of keys that were rotated out have names that no setting tells.
    names = {*RENDERED, *client_setup.keyed(store)}
    for key in signer.public:
        names |= {layout.signed_index(key.fingerprint), layout.key_file(key.fingerprint)}

    def get(name: str) -> Blob | None:
        try:
            return store.get(name)
        except NotFoundError:
            return None

    # Side by side, in any order: what counts is that all are read before the releases are listed.
    with side_by_side(len(names), "read") as workers:
        files = {blob.key: blob for blob in workers.map(get, sorted(names)) if blob}
    return Before(files=files, pages=read_pages(store))


def _write(store: Store, before: Before, state: State, site: Site, signer: Signer) -> Iterator[str]:
    """Write keys, then pages, then what leads clients to them; yield the key of each."""
    rendered = render(state, site, signer.public)
    due = _due(before.files, state, rendered, signer)
    keys = [pair for pair in due if pair[0].startswith("key-")]
    yield from _write_files(store, before.files, keys)
    yield from write_pages(store, before.pages, rendered.pages)
    yield from _write_files(store, before.files, due[len(keys) :])


def _write_files(
    store: Store, before: Mapping[str, Blob], due: Iterable[tuple[str, bytes]]
) -> Iterator[str]:
    without_headers = []
    for name, data in due:
        old = before.get(name)
        if old is not None and old.data == data:
            without_headers.append(old)
            continue
        # One that was missing must be missing still: of two first publishers the slower one loses.
        store.put(name, data, expected=old.etag if old else None, headers=headers(name))
        yield name
    yield from _rewrite(store, without_headers)


def _due(
    before: Mapping[str, Blob], state: State, rendered: Rendered, signer: Signer
) -> list[tuple[str, bytes]]:
    """Return the files but pages that are not as they should be, content or headers, in order."""
    signed = _signatures(rendered.files, before, signer, empty=is_empty(state))
    files = {**rendered.files, **signed}
    return [
        (name, files[name])
        for name in in_writing_order(files)
        if _is_due(before, name, files[name])
    ]


def _is_due(before: Mapping[str, Blob], name: str, data: bytes) -> bool:
    old = before.get(name)
    # A store that keeps no headers says None of them: nothing is to be brought back there.
    return old is None or old.data != data or old.headers not in (None, headers(name))


def _rewrite(store: Store, files: Iterable[Blob]) -> Iterator[str]:
    """Write files again that have lost their headers: a copy from elsewhere may bring none."""
    for file in files:
        wanted = headers(file.key)
        store.put(file.key, file.data, expected=file.etag, headers=wanted)
        # Some stores keep none: nothing can be brought back there.
        if store.head(file.key).headers != wanted:
            return
        yield file.key


def _signatures(
    files: Mapping[str, bytes], before: Mapping[str, Blob], signer: Signer, *, empty: bool
) -> dict[str, bytes]:
    """Return the signed files. One that is good already is left as it is.

    gpg puts the time into a signature, so that signing again would give other bytes, and every
    refresh would write, and overtake other publishers.
    """
    if not signer.keys:
        return {}
    first, text = signer.keys[0], files[layout.METADATA]
    old = before.get(layout.SIGNED_SUMS)
    signed = {layout.SIGNED_SUMS: _clearsigned(first, files[layout.SUMS], old)}
    # An index without a section is valid, but not under a signature for newer clients: it is
    # signed only to replace one that names images.
    for key in signer.keys:
        own = layout.signed_index(key.fingerprint)
        if not empty or own in before:
            signed[own] = _clearsigned(key, files[layout.INDEX], before.get(own))
    own = layout.signed_index(first.fingerprint)
    if own in signed or layout.SIGNED_INDEX in before:
        old = before.get(layout.SIGNED_INDEX)
        signed[layout.SIGNED_INDEX] = signed.get(own) or _clearsigned(
            first, files[layout.INDEX], old
        )
    old = before.get(layout.METADATA_SIGNATURE)
    kept = old is not None and first.has_signed(old.data, text)
    signed[layout.METADATA_SIGNATURE] = old.data if old and kept else first.detach_sign(text)
    return signed


def _clearsigned(key: SigningKey, text: bytes, old: Blob | None) -> bytes:
    if old is not None and key.has_clearsigned(old.data, text):
        return old.data
    return key.clearsign(text)


def _delete_signed(
    store: Store, before: Mapping[str, Blob], signer: Signer, retire: frozenset[str]
) -> tuple[str, ...]:
    if not retire:
        return ()
    names = [name for name in before if key_behind(name) in retire]
    if not signer.keys:
        all_signed = (
            layout.SIGNED_SUMS,
            layout.SIGNED_INDEX,
            layout.METADATA_SIGNATURE,
            layout.KEY,
        )
        names += [name for name in all_signed if name in before]
    # One by one, key.asc last: by it the next publisher knows what a crash broke off.
    for name in names:
        store.delete([name])
    return tuple(sorted(names))
