"""A manifest: our record of a build, and what every published file is rendered from."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from lago_images.errors import RepositoryError
from lago_images.repository.layout import BuildKey
from lago_images.repository.parsing import parse_json

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The published disk file and what is true of it.

    Attributes:
        format: Of the decompressed file: ``qcow2``.
        virtual_size: Bytes a guest sees; virt-builder's ``size``.
        size: Bytes of the decompressed file.
        compressed_size: Bytes of the ``.xz``.
        sha1: Of the decompressed file, hexadecimal; lago's ``.hash``.
        sha256: Of the ``.xz``; what the store is asked to prove.
        sha512: Of the ``.xz``; virt-builder's ``checksum[sha512]``.
    """

    format: str
    virtual_size: int
    size: int
    compressed_size: int
    sha1: str
    sha256: str
    sha512: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRecord:
    """What a build really stood on.

    Attributes:
        ref: As the spec says it, such as ``layer:debian-12``.
        digest: ``sha512:…`` or ``sha256:…`` of the template or disk; ``build:…`` of a layer's base.
        detail: What else is known, such as the template's source or the mirror and snapshot.
    """

    ref: str
    digest: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootTest:
    """How the boot test went: ``seconds`` to the guest agent's answer, under ``accel``."""

    seconds: float
    accel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One build. ``created`` is in whole seconds since the epoch; ``seconds`` the build's length.

    ``properties`` are the spec's; ``boot`` is None where the spec says ``boot-test=no``.
    ``dirty`` is true when the files built from were not those of ``commit``.
    """

    name: str
    arch: str
    build_id: str
    fingerprint: str
    base: BaseRecord
    disk: Disk
    commit: str
    dirty: bool
    created: int
    seconds: int
    properties: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    boot: BootTest | None = None
    packages: int | None = None
    tools: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def key(self) -> BuildKey:
        return BuildKey(name=self.name, arch=self.arch, build_id=self.build_id)

    def to_json(self) -> bytes:
        """Canonical JSON: the same manifest gives the same bytes."""
        plain: dict[str, Any] = {"schema": SCHEMA}
        for key in self.__dataclass_fields__:
            value = getattr(self, key)
            if isinstance(value, Disk | BaseRecord | BootTest):
                plain[key] = asdict(value)
            else:
                plain[key] = dict(value) if isinstance(value, Mapping) else value
        return canonical(plain)

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "Manifest":
        """Raises ``RepositoryError`` naming ``where`` when it is not a manifest we know."""
        return cls.from_plain(parse_json(data, f"{where} is not a manifest"), where)

    @classmethod
    def from_plain(cls, plain: dict[str, Any], where: str) -> "Manifest":
        """From what ``json.loads`` makes of a manifest; raises as ``from_json`` does."""
        try:
            refuse_newer(plain, SCHEMA, where)
            boot = plain.get("boot")
            known = {**plain}
            del known["schema"]
            known["base"] = BaseRecord(**plain["base"])
            known["disk"] = Disk(**plain["disk"])
            known["boot"] = None if boot is None else BootTest(**boot)
            return cls(**known)
        except (TypeError, KeyError, AttributeError) as error:
            raise RepositoryError(f"{where} is not a manifest: {error}") from error


def canonical(plain: object) -> bytes:
    """JSON with sorted keys and a final newline."""
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False, indent=1)
    return text.encode() + b"\n"


def refuse_newer(plain: Mapping[str, Any], schema: int, where: str) -> None:
    """Raises ``RepositoryError`` for a document of a schema this version does not know."""
    if plain["schema"] != schema:
        raise RepositoryError(
            f"{where} has schema {plain['schema']}; this lago-images knows {schema}",
            hint="upgrade lago-images",
        )
