"""Fresh signing keys from the real gpg."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lago_images.host.gpg import Gpg, throw_away
from lago_images.host.process import Runner


@dataclass(frozen=True, slots=True, kw_only=True)
class TestKey:
    """A key pair: what ``signing-key`` is given, and what clients are given."""

    __test__ = False

    fingerprint: str
    secret: Path
    public: Path


@contextmanager
def home() -> Iterator[Gpg]:
    with throw_away(Runner(environ=os.environ), os.environ) as gpg:
        yield gpg


def make_key(folder: Path, name: str, *, expire: str = "never", at: str = "") -> TestKey:
    """A key that expires after ``expire``, made at the time ``at`` as gpg writes times."""
    with home() as gpg:
        time = [f"--faked-system-time={at}!"] if at else []
        user = f"{name} <{name}@example.org>"
        gpg.call(*time, "--quick-generate-key", user, "ed25519", "sign", expire)
        fingerprint = gpg.secret_keys()[0].fingerprint
        secret, public = folder / f"{name}.secret.asc", folder / f"{name}.asc"
        secret.write_bytes(gpg.call("--armor", "--export-secret-keys", fingerprint))
        public.write_bytes(gpg.public_key(fingerprint))
    return TestKey(fingerprint=fingerprint, secret=secret, public=public)


def with_subkeys(folder: Path, *subkeys: tuple[str, str]) -> list[TestKey]:
    """A key that certifies only, exported after each subkey was added: (validity, made at)."""
    exports = []
    with home() as gpg:
        made = "--faked-system-time=20260101T000000!"
        gpg.call(made, "--quick-generate-key", "t <t@example.org>", "ed25519", "cert", "never")
        fingerprint = gpg.secret_keys()[0].fingerprint
        for number, (expire, at) in enumerate(subkeys):
            time = f"--faked-system-time={at}!"
            gpg.call(time, "--quick-add-key", fingerprint, "ed25519", "sign", expire)
            secret, public = folder / f"{number}.secret.asc", folder / f"{number}.asc"
            secret.write_bytes(gpg.call("--armor", "--export-secret-keys", fingerprint))
            public.write_bytes(gpg.public_key(fingerprint))
            exports.append(TestKey(fingerprint=fingerprint, secret=secret, public=public))
    return exports
