"""Define manifests: our records of builds, which every published file is rendered from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import msgspec

from lago_images.console import counted
from lago_images.repository.records.fields import (
    BUILD_ID,
    Arch,
    BuildId,
    Form,
    Format,
    Name,
    Sha1,
    Sha256,
    Sha512,
    property_problems,
)
from lago_images.repository.records.guest_tests import BOOT, GuestTestRecord, QuarantinedFailure
from lago_images.repository.records.layout import BuildKey
from lago_images.repository.records.parsing import (
    LARGEST,
    Count,
    DocumentError,
    Positive,
    Seconds,
    Text,
    from_plain,
    matching,
    parse_json,
)
from lago_images.specs.boot_check import boot_check
from lago_images.specs.model import BaseKind

# What QEMU calls it says nothing to who uses an image.
_RAN_ON = {"tcg": "TCG: emulation without KVM"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Describe the published disk file.

    Attributes:
        format: Of the decompressed file: ``qcow2``.
        virtual_size: Bytes a guest sees; virt-builder's ``size``.
        size: Bytes of the decompressed file.
        compressed_size: Bytes of the ``.xz``.
        sha1: Of the decompressed file, hexadecimal; lago's ``.hash``.
        sha256: Of the ``.xz``; what the store is asked to prove.
        sha512: Of the ``.xz``; virt-builder's ``checksum[sha512]``.
        plain_sha256: Of the decompressed file; None in manifests older than this field.
    """

    format: Format
    virtual_size: Positive
    size: Positive
    compressed_size: Positive
    sha1: Sha1
    sha256: Sha256
    sha512: Sha512
    plain_sha256: Sha256 | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFile:
    """Describe the disk in another form, which is used as it is: bytes and SHA-256 of the file."""

    size: Positive
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRecord:
    """Record what a build really stood on.

    Attributes:
        ref: As the spec says it, such as ``layer:debian-12``.
        digest: ``sha512:…`` or ``sha256:…`` of the template or disk; of a layer's base,
            ``sha256:…`` of its compressed disk.
        detail: What else is known, such as the template's source or the mirror and snapshot.
        build: The build id of a layer's base; empty for other bases.
        revision: The base's revision at that time; None for one that was not released yet.
    """

    ref: Text
    digest: Text
    detail: Text = ""
    build: Annotated[str, matching(f"(?:{BUILD_ID.pattern})?", "a build id, or empty")] = ""
    revision: Positive | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BootTest:
    """Record how the boot test went.

    Attributes:
        seconds: From the start to the guest agent's answer, of the slowest boot.
        accel: What ran the guest: ``kvm`` or ``tcg``.
        firmware: The same seconds of each boot, by the kind of firmware: ``bios``, or ``uefi``,
            which on x86_64 had Secure Boot on. Empty in records older than this field.
        again: The same seconds of the second boot; None for none, and in older records.
        checks: The names of what was judged, besides that the agent answered. Empty in older
            records.
        tests: How the tests of the spec's own ended, and those of what it stands on.
        quarantined: What failed, and was held back.
    """

    seconds: Seconds
    accel: Text
    firmware: Mapping[Text, Seconds] = field(default_factory=lambda: MappingProxyType({}))
    again: Seconds | None = None
    checks: tuple[Text, ...] = ()
    tests: tuple[GuestTestRecord, ...] = ()
    quarantined: tuple[QuarantinedFailure, ...] = ()

    @property
    def has_passed(self) -> bool:
        """Return whether it booted as it should; a failure that is held back is one."""
        return all(failure.what != BOOT for failure in self.quarantined)

    @property
    def failed(self) -> frozenset[str]:
        """Return what failed: names of tests, or ``BOOT`` for all of it."""
        if not self.has_passed:
            return frozenset({BOOT})
        return frozenset(test.name for test in self.tests if not test.has_passed)

    def __str__(self) -> str:
        """Return the boots in few words, and how many tests there were."""
        boots = [f"{name} {seconds:.0f} s" for name, seconds in sorted(self.firmware.items())]
        boots = boots or [f"{self.seconds:.0f} s"]
        if self.again is not None:
            boots.append(f"second boot {self.again:.0f} s")
        return self._told(boots)

    @property
    def result(self) -> str:
        """Return the same without seconds."""
        return self._told(sorted(self.firmware))

    def _told(self, boots: Sequence[str]) -> str:
        ran_on = _RAN_ON.get(self.accel, self.accel)
        words = f"{', '.join(boots)} ({ran_on})" if boots else ran_on
        if not self.has_passed:
            words = f"failed ({ran_on})"
        if self.tests:
            failed = sum(not test.has_passed for test in self.tests)
            count = counted(len(self.tests), "test")
            words += f", {failed} of {count} failed" if failed else f", {count} passed"
        until = max((failure.until for failure in self.quarantined), default="")
        return f"{words}, quarantined until {until}" if until else words


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """Record what a spec's commands ran in.

    Attributes:
        name: ``namespace`` or ``appliance``.
        why: The reason; older manifests have none for namespaces.
    """

    name: Text
    why: Text = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The record of one build.

    ``created`` is in seconds since the epoch, ``seconds`` is how long it took.
    ``properties`` are the spec's; ``boot`` is None where the spec says ``boot-test=no: REASON``.
    ``engine`` is None where no command ran, and in older manifests.
    ``also`` has the disk's other forms, by the name that ``publish-also`` has for each.
    ``dirty`` is true when the files built from were not those of ``commit``.
    """

    SCHEMA: ClassVar[int] = 1
    WHAT: ClassVar[str] = "a manifest"

    name: Name
    arch: Arch
    build_id: BuildId
    fingerprint: Text
    base: BaseRecord
    disk: Disk
    commit: Text
    dirty: bool
    created: Count
    seconds: Count
    properties: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    boot: BootTest | None = None
    packages: Count | None = None
    tools: Mapping[Text, Text] = field(default_factory=lambda: MappingProxyType({}))
    engine: EngineRecord | None = None
    also: Mapping[Form, DiskFile] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def key(self) -> BuildKey:
        return BuildKey(name=self.name, arch=self.arch, build_id=self.build_id)

    @property
    def tried(self) -> str:
        """Return in few words how the image was booted, or why it was not."""
        if self.boot is not None:
            return str(self.boot)
        return f"none: {self.why_not_booted}" if self.why_not_booted else "none"

    @property
    def why_not_booted(self) -> str:
        """Return the reason that the spec gives; empty where the image was booted."""
        return "" if self.boot else boot_check(self.properties).reason

    @property
    def base_key(self) -> BuildKey | None:
        """Return the build that a layer stands on; None for other images."""
        kind, _, name = self.base.ref.partition(":")
        if kind != BaseKind.LAYER:
            return None
        return BuildKey(name=name, arch=self.arch, build_id=self.base.build)

    def to_plain(self) -> dict[str, Any]:
        # enc_hook: of mappings msgspec knows dict alone, and these may be read-only ones.
        plain = {"schema": self.SCHEMA, **msgspec.to_builtins(self, enc_hook=dict)}
        # Manifests from before there was such a field keep their bytes.
        if self.engine is None:
            del plain["engine"]
        # Likewise, from before more was judged than that the agent answers, and specs had tests.
        for name in ("firmware", "again", "checks", "tests", "quarantined"):
            if self.boot and plain["boot"][name] in (None, [], (), {}):
                del plain["boot"][name]
        if not self.also:
            del plain["also"]
        if self.disk.plain_sha256 is None:
            del plain["disk"]["plain_sha256"]
        return plain

    def to_json(self) -> bytes:
        """Return canonical JSON: the same manifest gives the same bytes."""
        return canonical(self.to_plain())

    @classmethod
    def parse(cls, data: bytes, key: BuildKey) -> "Manifest":
        """Read the manifest of the build ``key``.

        Raises ``RepositoryError`` with the manifest's path and all that is wrong: it is not JSON,
        of another schema, a field is not what it must be, or it is another build's.
        """
        message = f"{key.staging.manifest} is not {cls.WHAT}"
        return cls.from_plain(parse_json(data, message, largest=LARGEST), key)

    @classmethod
    def from_plain(cls, plain: object, key: BuildKey) -> "Manifest":
        """Make a manifest of what ``parse_json`` returned; raises as ``parse`` does."""
        where = key.staging.manifest
        manifest = from_plain(plain, cls, where)
        if problems := manifest.problems(key):
            raise DocumentError(where, cls.WHAT, problems)
        return manifest

    def problems(self, key: BuildKey) -> list[str]:
        """Return why this, each of whose fields is valid, is not the manifest of ``key``."""
        other = [] if self.key == key else [f"it is the manifest of {self.key.staging.folder}"]
        return other + property_problems(self.properties)


def canonical(plain: object) -> bytes:
    """Return JSON with sorted keys, an item a line, and a final newline."""
    # Not by the standard library: with an indentation it takes seconds for 10,000 releases.
    return msgspec.json.format(msgspec.json.encode(plain, order="sorted"), indent=1) + b"\n"
