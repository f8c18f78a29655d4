"""Sign statements: DSSE envelopes, whose signatures are gpg's over the envelope's PAE.

https://github.com/secure-systems-lab/dsse has the form. A signature in it is gpg's detached one
in binary, so that gpg alone can check it: ``docs/verifying-an-image.md`` has the commands.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError
from securesystemslib.signer import Signature  # type: ignore[attr-defined] # has no __all__

from lago_images.errors import CommandError, SigningError
from lago_images.host.gpg import Gpg, fingerprints, throw_away
from lago_images.host.process import Runner
from lago_images.repository.records.manifest import canonical
from lago_images.repository.rendering.signing import Signer

TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Hold an envelope's payload, and the fingerprints of the trusted keys that signed it."""

    payload: bytes
    signers: tuple[str, ...]


def sign(payload: bytes, signer: Signer) -> bytes:
    """Make the envelope of an in-toto statement, signed by every key of the repository.

    gpg puts the time into its signatures: signing again gives other bytes.

    Raises:
        SigningError: There is no key, or one of them cannot sign.
    """
    if not signer.keys:
        raise SigningError("a statement is to be signed, and there is no key", hint="signing-key")
    envelope = Envelope(payload=payload, payload_type=TYPE, signatures={})
    for key in signer.keys:
        armoured = key.detach_sign(envelope.pae())
        # In binary, as DSSE puts it into base64: an armour would be a text within a text.
        signature = key.gpg.call("--dearmor", stdin=armoured, doing="read a signature")
        envelope.signatures[key.fingerprint] = Signature(key.fingerprint, signature.hex())
    return canonical(envelope.to_dict())


def verify(
    data: bytes, keys: Iterable[bytes], runner: Runner, environ: Mapping[str, str], *, where: str
) -> Verified:
    """Return the statement in an envelope that one of ``keys``, armoured public keys, signed.

    An envelope's key ids are hints that nobody signed: gpg finds the key, and goes by ``keys``
    alone, offline. Signatures of other keys do not count. A key that has expired since counts, one
    that was revoked does not.

    Raises:
        SigningError: It is no envelope of an in-toto statement, none of the keys has signed it, or
            one of ``keys`` is not a public key.
    """
    envelope = _parse(data, where)
    with throw_away(runner, environ) as gpg:
        trusted = _trust(gpg, keys)
        # securesystemslib keeps in hexadecimal what an envelope has in base64.
        signatures = [bytes.fromhex(each.signature) for each in envelope.signatures.values()]
        signers = {_signer(gpg, signature, envelope.pae()) for signature in signatures} & trusted
    if not signers:
        raise SigningError(
            f"{where} has no good signature by {' or '.join(sorted(trusted)) or 'any key'}"
        )
    return Verified(payload=envelope.payload, signers=tuple(sorted(signers)))


def _parse(data: bytes, where: str) -> Envelope:
    try:
        envelope = Envelope.from_dict(json.loads(data))
    # securesystemslib validates little of what it is given: it fails wherever it first stumbles.
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        FormatError,
    ) as error:
        message = repr(error)[:200]
        raise SigningError(f"{where} is no DSSE envelope: {message}") from error
    if envelope.payload_type != TYPE:
        kind = repr(envelope.payload_type)[:200]
        raise SigningError(f"{where} holds {kind}, not {TYPE}")
    return envelope


def _trust(gpg: Gpg, keys: Iterable[bytes]) -> set[str]:
    trusted: set[str] = set()
    for armour in keys:
        try:
            trusted.update(fingerprints(gpg, armour))
            gpg.import_keys(armour)
        except CommandError as error:
            raise SigningError(f"not a public key: {error.last_words}") from error
    return trusted


def _signer(gpg: Gpg, signature: bytes, data: bytes) -> str:
    """Return the primary key of a good signature; empty for any other."""
    try:
        return gpg.detached_signer(signature, data, expired_keys=True)
    except SigningError:
        return ""
