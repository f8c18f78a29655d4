"""Refuse a publication whose keys would leave behind clients who trust a published key."""

from collections.abc import Callable, Mapping, Sequence

from lago_images.errors import MANUAL, NotFoundError, SigningError
from lago_images.host.process import Runner
from lago_images.repository.records import layout
from lago_images.repository.records.layout import key_behind
from lago_images.repository.rendering import client_setup
from lago_images.repository.rendering.signing import Signer, key_fingerprint
from lago_images.storage.base import Blob, Store

# Of a public key's file: its fingerprint.
Fingerprint = Callable[[bytes], str]
_UNKNOWN = "an unknown key"


class LeftBehindError(SigningError):
    """Clients who trust a published key would be left behind."""


def left_behind(store: Store, signer: Signer, environ: Mapping[str, str]) -> LeftBehindError | None:
    """Return why the next publication would be refused; None where its keys are in order.

    Only reads. Raises ``SigningError`` where the published key is damaged.
    """
    runner = Runner(environ=environ)
    names = {layout.KEY, layout.SIGNED_INDEX, *client_setup.keyed(store)}
    before = dict[str, Blob]()
    for name in sorted(names):
        try:
            before[name] = store.get(name)
        except NotFoundError:
            continue
    try:
        refuse_key_change(
            before, signer, lambda armour: key_fingerprint(armour, environ, runner), frozenset()
        )
    except LeftBehindError as error:
        return error
    return None


def refuse_key_change(
    before: Mapping[str, Blob], signer: Signer, fingerprint: Fingerprint, retire: frozenset[str]
) -> None:
    """Raise ``LeftBehindError`` when clients who trust a published key would be left behind.

    They would read a stale index, or one signed by a key that they do not know. A key is given
    up by naming it in ``retire``; one whose retirement was begun needs no name.
    """
    ours = [key.fingerprint for key in signer.public]
    if both := retire & set(ours):
        raise SigningError(
            f"{', '.join(sorted(both))} is to be retired and is in signing-key",
            hint=f"take it out of signing-key first, where {signer.origin} says it",
        )
    known = {key_behind(name) for name in before}
    strange = retire - known
    retire |= half_retired(before, signer, fingerprint)
    abandoned = known - {"", *ours} - retire
    # A subkey that clients know and that no longer signs leaves them behind like a key does.
    subkeys = _lost_subkeys(before, signer) - retire
    first = signer.public[0] if signer.keys else None
    # A key that was extended, or got a subkey, has other bytes, and the fingerprint it always had.
    if layout.KEY in before and not (first and before[layout.KEY].data == first.armour):
        published = _published_key(before, signer, fingerprint)
        if published not in retire and (first is None or published != first.fingerprint):
            abandoned.add(published)
    elif layout.SIGNED_INDEX in before and first is None and not retire:
        abandoned.add(_UNKNOWN)
    if abandoned and abandoned <= set(ours[1:]):
        raise _misplaced(min(abandoned), ours, signer.origin)
    if strange and (abandoned or subkeys):
        raise _no_such_key(strange, abandoned | subkeys)
    # Which key is not known is no matter beside those that are.
    if missing := sorted(abandoned - {*ours, _UNKNOWN}):
        raise _missing(missing, ours, signer.origin)
    if abandoned:
        raise _unknown()
    if subkeys:
        raise _without_subkeys(sorted(subkeys))


def half_retired(
    before: Mapping[str, Blob], signer: Signer, fingerprint: Fingerprint
) -> frozenset[str]:
    """Find the keys whose retirement was begun: what they signed is there without their own file.

    A key's file is deleted first, and what it signed last, so that a retirement that a crash broke
    off is known for one, and finished by whoever publishes next.
    """
    published = {key_behind(name) for name in before}
    if not any(layout.KEY in before and before[layout.KEY].data == k.armour for k in signer.public):
        published.add(_published_key(before, signer, fingerprint))
    without_file = {key for key in published if layout.key_file(key) not in before}
    return frozenset(without_file - {"", *(key.fingerprint for key in signer.public)})


def _lost_subkeys(before: Mapping[str, Blob], signer: Signer) -> frozenset[str]:
    """Find the subkeys that signed in published copies of our keys, and do not any more."""
    copies = ((key, before.get(layout.key_file(key.fingerprint))) for key in signer.keys)
    lost = (key.left_behind(copy.data) for key, copy in copies if copy)
    return frozenset().union(*lost)


def _no_such_key(strange: frozenset[str], signing: set[str]) -> LeftBehindError:
    """Return that what is to be retired is no key of this repository, and which keys are."""
    which = " or ".join(f"--retire-key {key}" for key in sorted(signing))
    return LeftBehindError(
        f"--retire-key {', '.join(sorted(strange))}: no key of this repository, which is "
        f"signed by {', '.join(sorted(signing))}",
        hint=f"lago-images repo refresh {which}",
    )


def _misplaced(first: str, ours: Sequence[str], origin: str) -> LeftBehindError:
    return LeftBehindError(
        f"index.asc is signed by {first}, which is in signing-key, but not the first there "
        f"(which has {', '.join(ours)}, as {origin} says)",
        hint="let it be the first: a new key takes its place when the old one is retired "
        f"({MANUAL}/signing.md)",
    )


def _missing(keys: Sequence[str], ours: Sequence[str], origin: str) -> LeftBehindError:
    """Return that signing-key has other keys than those of clients, or none."""
    names = " and ".join(keys)
    if ours:
        which = "a key that is" if len(keys) == 1 else "keys that are"
        has = f", {which} not in signing-key (which has {', '.join(ours)}, as {origin} says)"
        do = f"add {names} to signing-key"
    else:
        has, do = ", and signing-key is not set", f"set signing-key to {names}"
    return LeftBehindError(
        f"the published files are signed by {names}{has}",
        hint=f"{do} (the key of index.asc is the first); {_only_if(keys)}",
    )


def _unknown() -> LeftBehindError:
    return LeftBehindError(
        f"the published index.asc is signed by {_UNKNOWN}, and signing-key is not set",
        hint="set signing-key to that key, which gpg --verify index.asc names; only if no "
        "client trusts it any more: lago-images repo refresh --retire-key FINGERPRINT",
    )


def _without_subkeys(subkeys: Sequence[str]) -> LeftBehindError:
    names = " and ".join(subkeys)
    return LeftBehindError(
        f"the published files are signed by the subkey {names}, by which the key in signing-key "
        "signs no more",
        hint=f"put the subkey {names} back into the key; {_only_if(subkeys)}",
    )


def _only_if(keys: Sequence[str]) -> str:
    """Return how keys are retired that nobody needs."""
    retire = " ".join(f"--retire-key {key}" for key in keys)
    return (
        f"only if no client trusts {' or '.join(keys)} any more: lago-images repo refresh {retire}"
    )


def _published_key(before: Mapping[str, Blob], signer: Signer, fingerprint: Fingerprint) -> str:
    """Return what ``key.asc`` holds; empty where there is none.

    A damaged one counts as that of our first key if that one is published beside it.
    """
    if layout.KEY not in before:
        return ""
    try:
        return fingerprint(before[layout.KEY].data)
    except SigningError as error:
        first = signer.public[0].fingerprint if signer.keys else ""
        if first and layout.key_file(first) in before:
            return first
        raise SigningError(
            f"the published {layout.KEY} is damaged, so whose clients it serves is not known: "
            f"{error.message}",
            hint=f"put the right file in its place, or delete it: {layout.KEY} is written anew",
        ) from error
