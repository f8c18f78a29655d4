"""All that a publisher does, behind one door that is opened before anything is written."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from lago_images.console import Console
from lago_images.host.process import Runner
from lago_images.repository import publish, releasing
from lago_images.repository.manifest import Manifest
from lago_images.repository.releasing import IsAncestor, Outcome
from lago_images.repository.signing import Signer, key_fingerprint, open_signer
from lago_images.repository.site import Site, site_of
from lago_images.repository.state import State
from lago_images.settings import Settings
from lago_images.storage.base import Blob, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """Publishes into a store that was found safe, with keys that were found to sign.

    ``before`` are the rendered files as they were then.
    """

    store: Store
    site: Site
    signer: Signer
    fingerprint: publish.Fingerprint
    retire: frozenset[str]
    now: Callable[[], float]
    before: Mapping[str, Blob] | None = None

    def release(
        self,
        manifest: Manifest,
        *,
        commit: str,
        known_revision: int,
        is_ancestor: IsAncestor,
        state: State | None = None,
    ) -> Outcome:
        """See ``releasing.release``."""
        return releasing.release(
            self.store,
            manifest,
            commit=commit,
            known_revision=known_revision,
            is_ancestor=is_ancestor,
            now=self.now,
            state=state,
        )

    def refresh(self) -> publish.Refreshed:
        """See ``publish.refresh``."""
        return publish.refresh(
            self.store,
            self.site,
            self.signer,
            fingerprint=self.fingerprint,
            retire=self.retire,
            before=self.before,
        )

    def is_rendered(self, state: State) -> bool:
        """Whether the rendered files, as they were found, are what ``state`` renders to."""
        found = self.before or {}
        return not (self.retire or publish.due(found, state, self.site, self.signer))

    def record(self, commit: str, *, is_ancestor: IsAncestor) -> bool:
        """See ``publish.record``."""
        return publish.record(self.store, commit, is_ancestor=is_ancestor)


@contextmanager
def publishing(
    store: Store,
    settings: Settings,
    *,
    console: Console,
    environ: Mapping[str, str],
    now: Callable[[], float],
    retire: frozenset[str] = frozenset(),
) -> Iterator[Publisher]:
    """A publisher, once the settings, the store and the signing keys have proven themselves.

    Raises:
        SettingsError: What the settings say of the repository cannot be published.
        UnsafeStoreError: The store does not keep conditional writes.
        SigningError: A key cannot sign, or a published key's clients would be left behind.
    """
    site = site_of(settings, store.url)
    runner = Runner(environ=environ)

    def fingerprint(armour: bytes) -> str:
        return key_fingerprint(armour, environ, runner)

    with open_signer(settings, environ, runner) as signer:
        before = publish.published_files(store, signer)
        publish.refuse_key_change(before, signer, fingerprint, retire)
        store.ensure_safe_writes(single_writer=settings.single_writer, console=console)
        yield Publisher(
            store=store,
            site=site,
            signer=signer,
            fingerprint=fingerprint,
            retire=retire,
            now=now,
            before=before,
        )
