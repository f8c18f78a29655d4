"""Sign the published files, and recognise those that are signed already.

``signing-key`` holds one key, or while keys are rotated several, parted by commas (see
``docs/signing.md``). The first signs ``index.asc`` and ``repo.metadata``; every one signs an
index of its own, ``index-<fingerprint>.asc``, whose path outlives the rotation.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lago_images.errors import MANUAL, CommandError, SigningError
from lago_images.host.gpg import Gpg, Key, fingerprints, signing_parts, throw_away
from lago_images.host.process import Runner
from lago_images.repository.rendering.site import PublicKey
from lago_images.settings import FILE, Settings, key_file

_EXPORT = "gpg --export-secret-keys --armor FINGERPRINT"
_PARTED = "several keys are several references in signing-key, parted by commas"
# A second reference in one, behind a blank or a semicolon.
_SEVERAL = re.compile(r"[\s;](?:file|env|agent):")
_LIST = (
    "gpg --list-secret-keys shows the keys of this user's gpg: name one of their fingerprints, "
    "or import the key"
)
_PROOF = b"lago-images\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key that has proven that it can sign, unless ``open_signer`` was told not to try.

    ``signer`` is the fingerprint of what of it signs: the oldest part that can. Clients who got
    the key before a subkey was added know that one only.
    """

    public: PublicKey
    gpg: Gpg
    signer: str

    @property
    def fingerprint(self) -> str:
        return self.public.fingerprint

    def clearsign(self, text: bytes) -> bytes:
        """Sign a text; raises ``SigningError`` unless the signature is good and ours."""
        try:
            signed = self.gpg.clearsign(self.signer, text)
        except CommandError as error:
            raise _refused(self.fingerprint, error) from error
        if not self.has_clearsigned(signed, text):
            raise SigningError(f"gpg's signature with {self.fingerprint} does not check out")
        return signed

    def detach_sign(self, data: bytes) -> bytes:
        """Sign as ``clearsign`` does, apart from the data."""
        try:
            signature = self.gpg.detach_sign(self.signer, data)
        except CommandError as error:
            raise _refused(self.fingerprint, error) from error
        if not self.has_signed(signature, data):
            raise SigningError(f"gpg's signature with {self.fingerprint} does not check out")
        return signature

    def left_behind(self, published: bytes) -> frozenset[str]:
        """Return what signed in a published copy of this key, if what signs now is not in there.

        Nobody has a key from a file that is damaged.
        """
        if published == self.public.armour:
            return frozenset()
        try:
            before = signing_parts(self.gpg, published)
        except CommandError:
            return frozenset()
        return frozenset() if self.signer in before else frozenset(before)

    def has_clearsigned(self, signed: bytes, text: bytes) -> bool:
        """Return whether ``signed`` is ``text``, signed by this key."""
        try:
            return self.gpg.signed_text(signed) == (self.fingerprint, text)
        except SigningError:
            return False

    def has_signed(self, signature: bytes, data: bytes) -> bool:
        """Return whether ``signature`` is this key's over ``data``."""
        try:
            return self.gpg.detached_signer(signature, data) == self.fingerprint
        except SigningError:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """All keys that sign, the one of ``index.asc`` first; none for an unsigned repository.

    ``origin`` is what says them: the settings file, a variable or an option.
    """

    keys: tuple[SigningKey, ...] = ()
    origin: str = FILE

    @property
    def public(self) -> tuple[PublicKey, ...]:
        return tuple(key.public for key in self.keys)


@contextmanager
def open_signer(
    settings: Settings, environ: Mapping[str, str], runner: Runner, *, is_tried: bool = True
) -> Iterator[Signer]:
    """Return the signer that the settings ask for.

    Unless it ``is_tried``, nothing is signed, for which gpg's agent may ask for a passphrase.

    Raises:
        SigningError: A key is missing, expired, revoked, or cannot sign; found before anything
            is written, by signing something.
    """
    references = [text.strip() for text in settings.signing_key.split(",") if text.strip()]
    # Nothing a child prints about keys belongs into a log that is archived.
    runner = replace(runner, log=None, echo=None)
    with ExitStack() as stack:
        keys = [
            _opened(reference, settings.folder, environ, runner, stack) for reference in references
        ]
        # No listing tells of a passphrase that nobody is there to type, or an agent that refuses.
        for key in keys if is_tried else ():
            key.clearsign(_PROOF)
        names = [key.fingerprint for key in keys]
        if len(set(names)) < len(names):
            raise SigningError("signing-key names the same key twice")
        yield Signer(keys=tuple(keys), origin=settings.origins.get("signing_key", FILE))


def key_fingerprint(armour: bytes, environ: Mapping[str, str], runner: Runner) -> str:
    """Return the fingerprint of the one key in a file; raises ``SigningError`` for others."""
    with throw_away(runner, environ) as gpg:
        try:
            keys = fingerprints(gpg, armour)
        except CommandError as error:
            raise SigningError(f"not a public key: {error.message}") from error
    if len(keys) != 1:
        raise SigningError(f"a key file with {len(keys)} keys; clients trust only the last")
    return keys[0]


def _opened(
    reference: str, folder: Path, environ: Mapping[str, str], runner: Runner, stack: ExitStack
) -> SigningKey:
    try:
        return _open(reference, folder, environ, runner, stack)
    except SigningError as error:
        # A path may have a blank, so that only what fails is taken for several.
        if not _SEVERAL.search(reference):
            raise
        raise SigningError(error.message, hint=_PARTED) from error


def _open(
    reference: str, folder: Path, environ: Mapping[str, str], runner: Runner, stack: ExitStack
) -> SigningKey:
    scheme, colon, rest = reference.partition(":")
    if colon and scheme == "agent":
        gpg = Gpg(runner=runner, home=None, environ=environ)
        return _signing_key(gpg, rest.replace(" ", "").upper(), reference)
    data = _secret(reference, folder, environ)
    gpg = stack.enter_context(throw_away(runner, environ))
    try:
        gpg.import_keys(data)
    except CommandError as error:
        message = f"{reference} holds no key that gpg can take: {error.last_words}"
        raise SigningError(message, hint=_EXPORT) from error
    return _signing_key(gpg, "", reference)


def _secret(reference: str, folder: Path, environ: Mapping[str, str]) -> bytes:
    path = key_file(reference, folder)
    if path is None:
        variable = reference.partition(":")[2]
        if not environ.get(variable):
            raise SigningError(
                f"the environment variable {variable} with the signing key is not set",
                hint=f"put the output of `{_EXPORT}` into {variable}",
            )
        # Python keeps bytes that are no text as surrogates: these become the bytes again.
        return os.fsencode(environ[variable])
    try:
        return path.read_bytes()
    except OSError as error:
        raise SigningError(
            f"cannot read the signing key {path}: {error.strerror}",
            hint=f"its path begins at the folder of {FILE}; `{_EXPORT}` writes a key, and "
            "signing-key is file:PATH, env:VARIABLE or agent:FINGERPRINT",
        ) from error


def _signing_key(gpg: Gpg, wanted: str, reference: str) -> SigningKey:
    key = _only(gpg.secret_keys(wanted), reference)
    # doc/DETAILS of GnuPG, field 2 of a key: e for expired, r for revoked.
    if key.validity == "e":
        raise SigningError(
            f"the signing key {key.fingerprint} has expired",
            hint=f"extend it (gpg --quick-set-expire {key.fingerprint} 2y) and export it again",
        )
    if key.validity == "r":
        raise SigningError(
            f"the signing key {key.fingerprint} was revoked", hint=f"change it: {MANUAL}/signing.md"
        )
    if not (key.can_sign and key.signers):
        raise SigningError(f"the key {key.fingerprint} may not sign, or its signing subkey expired")
    armour = gpg.public_key(key.fingerprint)
    public = PublicKey(fingerprint=key.fingerprint, armour=armour)
    return SigningKey(public=public, gpg=gpg, signer=key.signers[0])


def _only(keys: list[Key], reference: str) -> Key:
    if not keys:
        in_agent = reference.startswith("agent:")
        hint = _LIST if in_agent else f"put the output of `{_EXPORT}` there"
        raise SigningError(f"{reference} has no secret key to sign with", hint=hint)
    if len(keys) > 1:
        raise SigningError(
            f"{reference} holds {len(keys)} secret keys; one is wanted",
            hint=_PARTED,
        )
    return keys[0]


def _refused(fingerprint: str, error: CommandError) -> SigningError:
    return SigningError(
        f"gpg cannot sign with {fingerprint}: {error.last_words}",
        hint="a key in a file or a variable must have no passphrase; else use agent:FINGERPRINT",
    )
