"""A maker of images, who signs lists of their checksums in the formats that makers use."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.files import Files
from tests.support.keys import TestKey, home


@dataclass(frozen=True)
class Maker:
    """A maker of images, who signs a list of them."""

    key: TestKey

    def sign(self, text: bytes, *how: str) -> bytes:
        with home() as gpg:
            gpg.import_keys(self.key.secret.read_bytes())
            return gpg.call(*how, "--local-user", self.key.fingerprint, stdin=text)

    def clear(self, text: bytes) -> bytes:
        return self.sign(text, "--clearsign")

    def publish(
        self,
        files: Mapping[str, bytes],
        server: Files,
        *,
        names: tuple[str, ...] = ("/d/SHA256SUMS",),
    ) -> None:
        """Put files on a server, and a clear-signed list of them under each of the names."""
        server.content.update(files)
        server.content |= dict.fromkeys(names, self.clear(sums(files)))


def sums(files: Mapping[str, bytes], algorithm: str = "sha256", style: str = "gnu") -> bytes:
    """A list of files by their paths: as sha256sum writes it in binary or text mode, or BSD's."""
    lists = []
    for path, data in files.items():
        digits, name = hashlib.new(algorithm, data).hexdigest(), path.rpartition("/")[2]
        bsd = f"# {name}: {len(data)} bytes\n{algorithm.upper()} ({name}) = {digits}"
        lists.append({"gnu": f"{digits} *{name}", "text": f"{digits}  {name}", "bsd": bsd}[style])
    return "\n".join([*lists, ""]).encode()
