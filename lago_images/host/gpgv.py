"""Verify what others have signed, by gpgv and the keys of one file alone."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from lago_images.errors import CommandError, SigningError
from lago_images.host.gpg import throw_away
from lago_images.host.process import Runner
from lago_images.host.signature_status import refusal, signers

CLEAR_SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_TIMEOUT = 60.0


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
            return signers(status)[-1], (folder / "text").read_bytes()
        (folder / "signature").write_bytes(signature)
        status = _status(runner, folder, str(folder / "signature"), str(folder / "data"))
        return signers(status)[-1], data


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
        raise refusal("\n".join(error.tail), error.last_words) from error
    return status.decode(errors="replace")
