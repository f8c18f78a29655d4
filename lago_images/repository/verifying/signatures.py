"""Check that the published signatures are good, by published keys, over what is published."""

from collections.abc import Iterator, Mapping

from lago_images.errors import MANUAL, CommandError, SigningError
from lago_images.host.gpg import Gpg, fingerprints, throw_away
from lago_images.host.process import Runner
from lago_images.repository.records import layout
from lago_images.repository.verifying.findings import REFRESH, Finding, note, problem

_DAY = 86_400
_SOON = 30
_SIGNED = "with the key in signing-key: " + REFRESH


def check(
    files: Mapping[str, bytes],
    environ: Mapping[str, str],
    runner: Runner,
    *,
    empty: bool,
    wanted: bool,
    now: float,
) -> list[Finding]:
    """Find what is wrong with the signatures among the published ``files``.

    Args:
        files: The rendered files by key, with all ``index-…`` and ``key-…`` that are there.
        environ: Where gpg finds what it needs.
        runner: Runs gpg.
        empty: Whether the index has no image: it need not be signed then.
        wanted: Whether the settings name a signing key.
        now: Seconds since the epoch, for keys that expire.
    """
    signed = [name for name in files if name.endswith(".asc")]
    if layout.KEY not in files:
        if wanted and not signed:
            return [problem(layout.KEY, "signing-key is set, and nothing is signed", REFRESH)]
        return [problem(name, f"there is no {layout.KEY} to check it", _SIGNED) for name in signed]
    with throw_away(runner, environ) as gpg:
        keys, findings = _keys(gpg, files, now)
        if layout.KEY in keys:
            findings += _signatures(gpg, files, keys, empty=empty)
    return findings


def _keys(gpg: Gpg, files: Mapping[str, bytes], now: float) -> tuple[dict[str, str], list[Finding]]:
    """Return the fingerprints of the keys, by file; the keys are imported."""
    keys: dict[str, str] = {}
    findings = []
    for name in files:
        if name != layout.KEY and not name.startswith("key-"):
            continue
        try:
            # One and no more: of several in a file virt-builder trusts the last.
            [keys[name]] = fingerprints(gpg, files[name])
            gpg.import_keys(files[name])
        except (CommandError, ValueError):
            findings.append(problem(name, "it is not one public key", _SIGNED))
            continue
        if name not in (layout.KEY, layout.key_file(keys[name])):
            findings.append(problem(name, f"it holds the key {keys[name]}", _SIGNED))
        findings += _validity(gpg, files[name], name, now)
    # Who set a client up by the key's own file must find there what index.asc is checked by.
    own = layout.key_file(keys.get(layout.KEY, ""))
    if layout.KEY in keys and files.get(own) != files[layout.KEY]:
        findings.append(problem(own, f"it is missing, or not as {layout.KEY}", REFRESH))
    return keys, findings


def _validity(gpg: Gpg, armour: bytes, name: str, now: float) -> Iterator[Finding]:
    listing = gpg.call("--with-colons", "--show-keys", stdin=armour).decode(errors="replace")
    # doc/DETAILS of GnuPG: field 2 is the validity (r: revoked, e: expired), field 7 the end.
    fields = next(line.split(":") for line in listing.splitlines() if line.startswith("pub:"))
    repair = f"extend the key, or change it: {MANUAL}/signing.md"
    if fields[1] == "r":
        yield problem(name, "the key was revoked", repair)
    elif fields[1] == "e" or (fields[6] and float(fields[6]) < now):
        yield problem(name, "the key has expired", repair)
    elif fields[6] and float(fields[6]) < now + _SOON * _DAY:
        yield note(name, f"the key expires in less than {_SOON} days", repair)
    yield from _subkeys(listing, name, now)


def _subkeys(listing: str, name: str, now: float) -> Iterator[Finding]:
    """Return the subkeys that sign, each with its end; those that ended are not used any more."""
    for line in listing.splitlines():
        # doc/DETAILS of GnuPG: of the fields after the validity, the third is the key's id, the
        # fifth its end in seconds, the tenth what it is for, `s` to sign.
        kind, validity, *fields = line.split(":")
        if kind != "sub" or validity in ("r", "e") or "s" not in fields[9] or not fields[4]:
            continue
        if now <= float(fields[4]) < now + _SOON * _DAY:
            message = f"the signing subkey {fields[2]} expires in less than {_SOON} days"
            yield note(name, message, f"extend it, or add one in time: {MANUAL}/signing.md")


def _signatures(
    gpg: Gpg, files: Mapping[str, bytes], keys: Mapping[str, str], *, empty: bool
) -> Iterator[Finding]:
    first = keys[layout.KEY]
    wanted = {layout.SIGNED_INDEX: first}
    wanted |= {layout.signed_index(key): key for key in keys.values()}
    # Clients that trust such a key would go on reading an index that nobody renews.
    strangers = {name for name in files if name.startswith("index-")} - wanted.keys()
    for name in sorted(strangers):
        yield problem(name, "its key is not published", f"{REFRESH} --retire-key FINGERPRINT")
    if layout.SIGNED_SUMS in files:
        yield from _clearsigned(gpg, files, layout.SIGNED_SUMS, first, over=layout.SUMS)
    else:
        yield problem(layout.SIGNED_SUMS, "it is missing", _SIGNED)
    for name, key in wanted.items():
        if name in files:
            yield from _clearsigned(gpg, files, name, key, over=layout.INDEX)
        elif not empty:
            yield problem(name, "it is missing", _SIGNED)
    name = layout.METADATA_SIGNATURE
    if name not in files:
        yield problem(name, "it is missing", _SIGNED)
        return
    try:
        signer = gpg.detached_signer(files[name], files.get(layout.METADATA, b""))
    except SigningError as error:
        yield problem(name, error.message, _SIGNED)
    else:
        if signer != first:
            yield problem(name, f"it is signed by {signer}, not by {first}", _SIGNED)


def _clearsigned(
    gpg: Gpg, files: Mapping[str, bytes], name: str, key: str, *, over: str
) -> Iterator[Finding]:
    try:
        signer, text = gpg.signed_text(files[name])
    except SigningError as error:
        yield problem(name, error.message, _SIGNED)
        return
    if signer != key:
        yield problem(name, f"it is signed by {signer}, not by {key}", _SIGNED)
    # The signature may be good and old: then clients with a key get another index than those
    # without.
    if text != files.get(over):
        yield problem(name, f"what is signed is not {over}", _SIGNED)
