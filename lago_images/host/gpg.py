"""Call GnuPG by its command line: keys in, signatures out, signatures checked.

Nothing is read but what is meant for programs: the colon listings of keys, and the lines of
``--status-fd``. Both are described in GnuPG's doc/DETAILS.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lago_images.errors import CommandError, SigningError, ToolMissingError
from lago_images.host.files import abandoned, locked
from lago_images.host.process import Runner
from lago_images.host.signature_status import refusal, signers

_TIMEOUT = 60.0
# The path of an agent's socket may have 107 bytes (unix(7)): the folder, our name of 17 with its
# slash, and "/S.gpg-agent.browser", gpg's longest.
_PREFIX = "lago-gpg-"
_LONGEST_PARENT = 107 - 18 - 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key pair in a GNUPGHOME.

    Attributes:
        fingerprint: Of the primary key.
        validity: gpg's letter: ``e`` expired, ``r`` revoked, and others that do not matter here.
        can_sign: Whether it, or a subkey, may sign and is not expired.
        signers: The fingerprints of what of it can sign now, itself or subkeys, the oldest first.
    """

    fingerprint: str
    validity: str
    can_sign: bool
    signers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpg:
    """Gpg calls gpg with one GNUPGHOME; the user's own when ``home`` is None."""

    runner: Runner
    home: Path | None
    environ: Mapping[str, str]

    def call(self, *arguments: str, stdin: bytes | None = None, doing: str = "read keys") -> bytes:
        """Run gpg and return its standard output. Raises ``CommandError``."""
        home = str(self.home) if self.home else self.environ.get("GNUPGHOME", "")
        # A pinentry would wait for a person; in a home of ours no key has a passphrase.
        own = ["--pinentry-mode", "loopback", "--passphrase", ""] if self.home else []
        argv = ["gpg", "--batch", "--no-tty", "--quiet", *own, *arguments]
        return self.runner.capture(
            argv,
            env={"GNUPGHOME": home} if home else {},
            stdin=stdin,
            timeout=_TIMEOUT,
            doing=doing,
        )

    def import_keys(self, data: bytes) -> None:
        """Import a key file. Raises ``CommandError`` when there is no key in ``data``."""
        self.call("--import", stdin=data, doing="import the signing key")

    def secret_keys(self, fingerprint: str = "") -> list[Key]:
        """List the key pairs whose secret half is here."""
        wanted = [fingerprint] if fingerprint else []
        try:
            listing = self.call("--with-colons", "--list-secret-keys", *wanted)
        except CommandError:
            # gpg exits with 2 where it has no key of that fingerprint.
            return []
        return list(_key_pairs(listing.decode(errors="replace")))

    def public_key(self, fingerprint: str) -> bytes:
        """Export the public key, armoured; the same key gives the same bytes."""
        # Without "minimal", signatures by others on the key come along, and change.
        return self.call("--armor", "--export-options", "export-minimal", "--export", fingerprint)

    def clearsign(self, fingerprint: str, text: bytes) -> bytes:
        """Sign a text, readable, by the very key or subkey of that fingerprint."""
        return self._sign("--clearsign", fingerprint, text)

    def detach_sign(self, fingerprint: str, data: bytes) -> bytes:
        return self._sign("--detach-sign", fingerprint, data)

    def signed_text(self, signed: bytes, *, expired_keys: bool = False) -> tuple[str, bytes]:
        """Return the primary key of a good clear signature, and the text under it.

        ``expired_keys``: take one by a key that has expired since, too. Raises ``SigningError``
        when the signature is bad or has expired, or is by a key that is not here or was revoked.
        """
        with tempfile.TemporaryDirectory(prefix="lago-images-") as folder:
            # What is signed is what gpg writes, not what stands around it: a file may have words
            # before and after the signed part.
            text = Path(folder) / "text"
            status = self._verify("--output", str(text), "--decrypt", stdin=signed)
            return _signer(status, expired_keys=expired_keys), text.read_bytes()

    def detached_signer(self, signature: bytes, data: bytes, *, expired_keys: bool = False) -> str:
        """Return the primary key of a good detached signature; raises as ``signed_text`` does."""
        with tempfile.TemporaryDirectory(prefix="lago-images-") as folder:
            path = Path(folder) / "signature"
            path.write_bytes(signature)
            status = self._verify("--verify", str(path), "-", stdin=data)
            return _signer(status, expired_keys=expired_keys)

    def _sign(self, how: str, fingerprint: str, data: bytes) -> bytes:
        # "!" keeps gpg from choosing another subkey than the one that is named.
        return self.call(
            "--armor", "--digest-algo", "SHA512", "--local-user", f"{fingerprint}!", how,
            stdin=data, doing=f"sign with {fingerprint}",
        )  # fmt: skip

    def _verify(self, *arguments: str, stdin: bytes) -> str:
        try:
            # Where it fails, what is on one descriptor is what the error has.
            status = self.call("--status-fd", "1", "--logger-fd", "1", *arguments, stdin=stdin)
        except CommandError as error:
            raise refusal("\n".join(error.tail), error.last_words) from error
        return status.decode(errors="replace")


@contextmanager
def throw_away(runner: Runner, environ: Mapping[str, str]) -> Iterator[Gpg]:
    """Make a GNUPGHOME that is removed after the block, its agent with it.

    What killed runs of this user left of theirs is removed first.
    """
    usual = tempfile.gettempdir()
    parent = Path(usual if len(os.fsencode(usual)) <= _LONGEST_PARENT else "/tmp")  # noqa: S108
    for left in abandoned(parent, _PREFIX):
        _remove(left, runner)
    home, lock, handle = locked(parent, _PREFIX)
    try:
        home.mkdir(mode=0o700)
        yield Gpg(runner=runner, home=home, environ=environ)
    finally:
        _remove(home, runner)
        lock.unlink(missing_ok=True)
        os.close(handle)


def _remove(home: Path, runner: Runner) -> None:
    # gpg starts an agent by itself, which outlives it and holds the secret key.
    try:
        with suppress(CommandError, ToolMissingError):
            runner.capture(["gpgconf", "--homedir", str(home), "--kill", "all"])
            runner.capture(["gpgconf", "--homedir", str(home), "--remove-socketdir"])
    finally:
        shutil.rmtree(home, ignore_errors=True)


def signing_parts(gpg: Gpg, armour: bytes) -> tuple[str, ...]:
    """Return the fingerprints of what can sign now in a key file, the oldest first."""
    return _signers(gpg.call("--with-colons", "--show-keys", stdin=armour).decode())


def fingerprints(gpg: Gpg, armour: bytes) -> list[str]:
    """Return the primary keys' fingerprints in a key file, without importing it."""
    listing = gpg.call("--with-colons", "--show-keys", stdin=armour)
    return [fingerprint for _kind, fingerprint, _fields in _primaries(listing.decode())]


def _key_pairs(listing: str) -> Iterator[Key]:
    for kind, fingerprint, fields in _primaries(listing):
        if kind == "sec":
            # Capitals in the twelfth field are what the key as a whole can do now.
            can_sign = "S" in fields[11]
            yield Key(
                fingerprint=fingerprint,
                validity=fields[1],
                can_sign=can_sign,
                signers=_signers(listing),
            )


def _signers(listing: str) -> tuple[str, ...]:
    """Find what can sign in a listing of one key: primary and subkeys with ``s``, by their age."""
    # By creation date: subkeys of one key may be added, and the oldest one stays the first.
    signers, part = [], [""] * 15
    for line in listing.splitlines():
        fields = line.split(":")
        if fields[0] in ("sec", "pub", "ssb", "sub"):
            part = fields
        # An "fpr" line belongs to the key above it. Of that, "e", "r" and "i" in the second field
        # are expired, revoked and invalid, and "#" in the fifteenth is a missing secret half.
        elif fields[0] == "fpr" and "s" in part[11] and part[1] not in "eri" and part[14] != "#":
            signers.append((int(part[5]), fields[9]))
    return tuple(fingerprint for _created, fingerprint in sorted(signers))


def _primaries(listing: str) -> Iterator[tuple[str, str, list[str]]]:
    """Find the primary keys in a colon listing: kind, fingerprint, fields."""
    primary: list[str] | None = None
    for line in listing.splitlines():
        fields = line.split(":")
        if fields[0] in ("sec", "pub"):
            primary = fields
        elif fields[0] == "fpr" and primary is not None:
            yield primary[0], fields[9], primary
            primary = None


def _signer(status: str, *, expired_keys: bool) -> str:
    # A file may have several signatures: which of them is meant is then a guess.
    every = signers(status, expired_keys=expired_keys)
    if len(every) != 1:
        raise SigningError(f"there are {len(every)} good signatures instead of one")
    return every[0]
