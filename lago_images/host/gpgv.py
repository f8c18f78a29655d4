"""Verify what others have signed, by gpgv and the keys of one file alone.

gpgv exits with 0 also for a good signature by a key that has expired or was revoked since, so its
status lines decide. They are described in GnuPG's doc/DETAILS.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from lago_images.errors import CommandError, SigningError
from lago_images.host.gpg import throw_away
from lago_images.host.process import Runner

CLEAR_SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_TIMEOUT = 60.0
_STATUS = "[GNUPG:] "
_REFUSED = {
    "REVKEYSIG": "it is signed with a key that was revoked",
    "EXPKEYSIG": "it is signed with a key that has expired",
    "EXPSIG": "its signature has expired",
}


class OtherTextError(SigningError):
    """A signature is of another text: one of the two was replaced, or somebody changed it."""


def verified(
    data: bytes, signature: bytes | None, keys: bytes, runner: Runner, environ: Mapping[str, str]
) -> tuple[str, bytes]:
    """Return who signed a text, by the primary key's fingerprint, and the text that is signed.

    Args:
        data: The text; clear-signed where ``signature`` is None.
        signature: A detached one, armoured or not.
        keys: A key file, armoured or not. Every signature must be by one of its keys.
        runner: Starts gpg and gpgv.
        environ: The environment variables of the run.

    Raises:
        OtherTextError: The signature is of another text.
        SigningError: It is by another key, or by one that is revoked or expired, has itself
            expired, or there is none; or there is no key in ``keys``.
    """
    with tempfile.TemporaryDirectory(prefix="lago-images-") as name:
        folder = Path(name)
        (folder / "keys").write_bytes(_keyring(keys, runner, environ))
        (folder / "data").write_bytes(data)
        if signature is None:
            # What is signed is what gpgv writes: a file may have words around the signed part.
            status = _status(runner, folder, "--output", str(folder / "text"), str(folder / "data"))
            return _signer(status), (folder / "text").read_bytes()
        (folder / "signature").write_bytes(signature)
        return _signer(
            _status(runner, folder, str(folder / "signature"), str(folder / "data"))
        ), data


def _keyring(keys: bytes, runner: Runner, environ: Mapping[str, str]) -> bytes:
    """Return a key file as gpgv takes it: not armoured."""
    with throw_away(runner, environ) as gpg:
        try:
            gpg.import_keys(keys)
        except CommandError as error:
            raise SigningError(f"the key file has no key: {error.last_words}") from error
        return gpg.call("--export")


def _status(runner: Runner, folder: Path, *arguments: str) -> str:
    argv = ["gpgv", "--status-fd", "1", "--logger-fd", "1", "--keyring", str(folder / "keys")]
    try:
        status = runner.capture([*argv, *arguments], timeout=_TIMEOUT, doing="verify a signature")
    except CommandError as error:
        raise _failure("\n".join(error.tail)) from error
    return status.decode(errors="replace")


def _events(status: str) -> dict[str, list[str]]:
    """Return the words after each status line's keyword; of several the last."""
    lines = [line.split() for line in status.splitlines() if line.startswith(_STATUS)]
    return {line[1]: line[2:] for line in lines}


def _failure(status: str) -> SigningError:
    events = _events(status)
    if "BADSIG" in events:
        return OtherTextError("its signature is of another text")
    for event, message in _REFUSED.items():
        if event in events:
            return SigningError(message)
    if missing := events.get("NO_PUBKEY"):
        return SigningError(f"it is signed with the key {missing[0]}, which the key file lacks")
    return SigningError("gpgv cannot use its signature, or there is none")


def _signer(status: str) -> str:
    """Return the primary key's fingerprint, which is the last field of VALIDSIG."""
    events = _events(status)
    if _REFUSED.keys() & events.keys() or "VALIDSIG" not in events:
        raise _failure(status)
    return events["VALIDSIG"][-1]
