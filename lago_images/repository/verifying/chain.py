"""Follow an image from the commit of its spec to the bytes of its disk, link by link.

Each link is compared with what another place proves of it: the release record binds every object
by its digest, the signed statement says where the disk comes from, the signed sums say what is
offered. What nothing in a repository can prove is named, too.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum

from lago_images.console import Console
from lago_images.errors import NotFoundError, RepositoryError, SigningError, UsageError
from lago_images.host.gpg import fingerprints, throw_away
from lago_images.host.process import Runner
from lago_images.repository.publishing.withdrawals import arch_of
from lago_images.repository.records import layout
from lago_images.repository.records.layout import ReleaseKey
from lago_images.repository.records.release import NO_COMMIT, Release, ReleasedImage
from lago_images.repository.records.state import State, read
from lago_images.repository.rendering import client_setup, index, sums
from lago_images.repository.statements import envelope, provenance
from lago_images.repository.statements.provenance import Provenance
from lago_images.storage.base import Store


class CheckResult(StrEnum):
    """Name how a check of a link ended; what is not verified breaks nothing."""

    VERIFIED = "verified"
    UNVERIFIED = "not verified"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Name one thing that was compared, or that nothing here can prove."""

    outcome: CheckResult
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Hold one part of the chain: what the repository says of it, and what is true of that."""

    name: str
    what: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Hold the links of one release; those of a layer are followed by its base's."""

    name: str
    arch: str
    revision: int
    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Hold the steps of an image's release, and of the bases that it stands on."""

    url: str
    steps: tuple[Step, ...]

    @property
    def broken(self) -> tuple[str, ...]:
        """Name the broken links, each with its image and revision."""
        return tuple(
            f"{step.name} {step.revision}: {link.name}"
            for step in self.steps
            for link in step.links
            if any(check.outcome is CheckResult.BROKEN for check in link.checks)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracer:
    """Hold where a chain is followed, and by which key.

    Attributes:
        store: The repository.
        runner: Runs gpg.
        environ: Where gpg finds what it needs.
        trusted: The armoured public keys that alone are trusted; none to take those that the
            repository serves.
        deep: Whether disks are read whole.
        console: Shows the progress of that.
    """

    store: Store
    runner: Runner
    environ: Mapping[str, str]
    console: Console
    trusted: tuple[bytes, ...] = ()
    deep: bool = False

    def trace(self, name: str, *, arch: str = "", revision: int | None = None) -> Chain:
        """Follow the chain of a revision, by default the one that clients get now.

        Raises:
            UsageError: There is no such revision, or it makes nothing public.
            RepositoryError: Its record cannot be read, or nothing is offered.
            StorageError: The store did not answer; nothing is concluded from that.
        """
        arch = arch_of(self.store, name, arch)
        state = read(self.store)
        look = _Look(tracer=self, state=state, keys=self._keys(), files=self._files())
        release: Release | None = _wanted(state, name, arch, revision)
        steps: list[Step] = []
        while release is not None and release.image is not None:
            earlier = frozenset((s.name, s.arch, s.revision) for s in steps)
            base = _Base.of(state, release, earlier)
            steps.append(look.step(release, release.image, base))
            release = base.release
        return Chain(url=self.store.url, steps=tuple(steps))

    def _keys(self) -> tuple[bytes, ...]:
        if self.trusted:
            return self.trusted
        # All of them: after a change of keys older statements carry the older key's signature.
        names = sorted(n for n in client_setup.keyed(self.store) if n.startswith("key-"))
        served = (self.get(name) for name in (layout.KEY, *names))
        return tuple(dict.fromkeys(data for data in served if data is not None))

    def _files(self) -> Mapping[str, bytes]:
        names = (layout.SUMS, layout.SIGNED_SUMS, layout.INDEX)
        return {name: data for name in names if (data := self.get(name)) is not None}

    def get(self, key: str) -> bytes | None:
        """Return a small object's bytes; None if it is missing."""
        try:
            return self.store.get(key).data
        except NotFoundError:
            return None


def _shown(name: str) -> str:
    return f"lago-images repo show {name} shows its revisions"


def _wanted(state: State, name: str, arch: str, revision: int | None) -> Release:
    damaged = {key: why for key, why in state.damaged.items() if key.image == (name, arch)}
    if revision is None:
        current = state.current(name, arch)
        if current is None:
            why = "; ".join(damaged.values()) or f"no revision of {name} ({arch}) is offered"
            raise RepositoryError(why, hint=f"name one: --revision; {_shown(name)}")
        return current
    key = ReleaseKey(name=name, arch=arch, revision=revision)
    if key in damaged:
        raise RepositoryError(damaged[key], hint="restore it from a copy")
    release = next((r for r in state.history(name, arch) if r.revision == revision), None)
    if release is None:
        raise UsageError(f"{name} ({arch}) has no revision {revision}", hint=_shown(name))
    if release.image is None:
        raise UsageError(f"{key} withdraws revision {release.withdraws}: it has no image")
    return release


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    """Hold what an image stands on: the release to go on with, if there is one that is right."""

    checks: tuple[Check, ...]
    release: Release | None = None

    @classmethod
    def of(cls, state: State, layer: Release, earlier: frozenset[tuple[str, str, int]]) -> "_Base":
        binding = layer.image.base if layer.image else None
        if binding is None:
            message = "that what it names has this digest: only its source can say"
            return cls(checks=(_unverified(message),))
        key = ReleaseKey(name=binding.name, arch=binding.arch, revision=binding.revision)
        history = state.history(binding.name, binding.arch)
        release = next((each for each in history if each.revision == binding.revision), None)
        if release is None:
            return cls(checks=(_broken(state.damaged.get(key, f"{key} is missing")),))
        if release.image is None or release.image.build != binding.build:
            return cls(checks=(_broken(f"{key} does not release the build {binding.build}"),))
        if release.image.manifest.disk.sha256 != binding.sha256:
            return cls(checks=(_broken(f"{key} releases a disk of another sha256"),))
        # Records are read as they lie in the store: a forged pair may name each other.
        if (release.name, release.arch, release.revision) in {
            *earlier,
            (layer.name, layer.arch, layer.revision),
        }:
            return cls(checks=(_broken(f"{key} stands on itself"),))
        checks = [_verified(f"{key} releases this build with this sha256")]
        if release.revision in state.withdrawn(release.name, release.arch):
            checks.append(_unverified(f"that it is fit for use: {key} was withdrawn since"))
        return cls(checks=tuple(checks), release=release)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statement:
    """Hold the signed provenance of a release as far as it is right, and how its checks ended."""

    checks: tuple[Check, ...]
    stated: Provenance | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """Examine one repository, read once: its records, its keys and its rendered files."""

    tracer: Tracer
    state: State
    keys: Sequence[bytes]
    files: Mapping[str, bytes] = field(default_factory=dict)

    def step(self, release: Release, image: ReleasedImage, base: _Base) -> Step:
        manifest, statement = image.manifest, self._statement(image)
        stated, disk = statement.stated, manifest.disk
        links = (
            _link("commit", _commit(image, stated), _commit_checks(image, stated)),
            _link("fingerprint", manifest.fingerprint, [
                *([_verified("the signed statement names it")] if stated else []),
                _unverified("that it is the commit's: only a plan of its checkout can say"),
            ]),
            _link("manifest", f"sha256 {image.objects[layout.MANIFEST].sha256}",
                  self._objects(image, [layout.MANIFEST])),
            _link("base", _stands_on(image), base.checks),
            _link("disk", f"{image.public.disk}: sha256 {disk.sha256}, sha512 {disk.sha512}, "
                  f"{disk.compressed_size} bytes", self._disk(image)),
            *self._also(image),
            _link("files", "what lies beside the disk", self._objects(image, _others(image))),
            _link("release", _released(release), _release_checks(release)),
            _link("offer", f"{layout.SUMS} and {layout.INDEX}", self._offer(release, image)),
            _link("signature", layout.PROVENANCE, statement.checks),
        )  # fmt: skip
        return Step(name=release.name, arch=release.arch, revision=release.revision, links=links)

    def _missing(self, image: ReleasedImage, key: str) -> Check:
        if image.public in self.state.retired:
            return _unverified(f"{key}: repo gc removes or has removed this copy")
        return _broken(f"{key} is missing")

    def _objects(self, image: ReleasedImage, names: Sequence[str]) -> Iterator[Check]:
        """Compare objects with the digests in the release record."""
        for name in names:
            key, expected = image.public.folder + name, image.objects[name]
            data = self.tracer.get(key)
            if data is None:
                yield self._missing(image, key)
            elif hashlib.sha256(data).hexdigest() != expected.sha256:
                yield _broken(f"{key} has not the sha256 that was released")
            else:
                yield _verified(f"{name} has the sha256 that was released")

    def _also(self, image: ReleasedImage) -> Iterator[Link]:
        for form, file in sorted(image.also.items()):
            key, digests = image.public.also(form), {"sha256": file.sha256}
            about = f"{key}: sha256 {file.sha256}, {file.size} bytes"
            yield _link(form, about, [
                *self._bytes(image, key, file.size, digests),
                _unverified("that the same disk is in it: the builder is trusted with that"),
            ])  # fmt: skip

    def _disk(self, image: ReleasedImage) -> Iterator[Check]:
        disk = image.manifest.disk
        digests = {"sha256": disk.sha256, "sha512": disk.sha512}
        return self._bytes(image, image.public.disk, disk.compressed_size, digests)

    def _bytes(
        self, image: ReleasedImage, key: str, expected_size: int, digests: Mapping[str, str]
    ) -> Iterator[Check]:
        """Compare a large object with its size and, with ``--deep``, its digests by algorithm."""
        store, sums_ = self.tracer.store, {name: hashlib.new(name) for name in digests}
        try:
            size = store.head(key).size
            if size != expected_size:
                yield _broken(f"{key} has {size} bytes")
                return
            if not self.tracer.deep:
                yield _verified("the size")
                yield _unverified("its bytes: --deep reads them")
                return
            with self.tracer.console.progress(f"reading {key}", size) as advance:
                for piece in store.read(key):
                    for sum_ in sums_.values():
                        sum_.update(piece)
                    advance(len(piece))
        except NotFoundError:
            yield self._missing(image, key)
            return
        if {name: sum_.hexdigest() for name, sum_ in sums_.items()} == digests:
            yield _verified(f"size, {' and '.join(digests)}, of every byte")
        else:
            yield _broken(f"{key} has sha256 {sums_['sha256'].hexdigest()}")

    def _offer(self, release: Release, image: ReleasedImage) -> Iterator[Check]:
        disk = image.public.disk
        try:
            listed = dict(sums.parse(self.files.get(layout.SUMS, b""), layout.SUMS))
        except RepositoryError as error:
            yield _broken(error.message)
            return
        if release in self.state.live(release.name, release.arch):
            disks = {image.public.also(form): file.sha256 for form, file in image.also.items()}
            disks[disk] = image.manifest.disk.sha256
            others = [each for each, sha256 in disks.items() if listed.get(each) != sha256]
            if not others:
                yield _verified(f"{layout.SUMS} lists the disk with this sha256")
            for each in others:
                yield _broken(f"{layout.SUMS} has {listed.get(each, 'no line')} for {each}")
        else:
            yield _unverified("that it is offered: it was withdrawn, or is being removed")
        if release == self.state.current(release.name, release.arch):
            yield self._indexed(release, image)
        yield self._signed_sums()

    def _indexed(self, release: Release, image: ReleasedImage) -> Check:
        entries, _ = index.parse(self.files.get(layout.INDEX, b""))
        wanted = (image.public.disk, image.manifest.disk.sha512)
        ours = [e for e in entries if (e.name, e.arch) == (release.name, release.arch)]
        if [(entry.file, entry.checksum) for entry in ours] == [wanted]:
            return _verified(f"{layout.INDEX} offers the disk with this sha512")
        return _broken(f"{layout.INDEX} does not offer {image.public.disk} with this sha512")

    def _signed_sums(self) -> Check:
        signed = self.files.get(layout.SIGNED_SUMS)
        if not self.keys:
            return _unverified(f"{layout.SUMS}: the repository has no key")
        if signed is None:
            return _broken(f"{layout.SIGNED_SUMS} is missing")
        with throw_away(self.tracer.runner, self.tracer.environ) as gpg:
            trusted = set()
            for armour in self.keys:
                trusted.update(fingerprints(gpg, armour))
                gpg.import_keys(armour)
            try:
                signer, text = gpg.signed_text(signed, expired_keys=True)
            except SigningError as error:
                return _broken(f"{layout.SIGNED_SUMS}: {error.message}")
        if signer not in trusted or text != self.files.get(layout.SUMS):
            return _broken(f"{layout.SIGNED_SUMS} is not {layout.SUMS}, signed")
        return _verified(f"{layout.SIGNED_SUMS} is {layout.SUMS}, signed by {signer}")

    def _statement(self, image: ReleasedImage) -> _Statement:
        """Check the envelope, and that it is about this build and all that lies beside it."""
        if layout.PROVENANCE not in image.objects:
            # Who trusts a key knows that the repository signs: then its absence is an attack.
            check = _broken if self.tracer.trusted else _unverified
            return _Statement(checks=(check("the release has no signed statement"),))
        [same] = self._objects(image, [layout.PROVENANCE])
        data = self.tracer.get(image.public.provenance)
        if data is None or same.outcome is CheckResult.BROKEN:
            return _Statement(checks=(same,))
        if not self.keys:
            message = "who signed it: the repository has no key, and none was given"
            return _Statement(checks=(same, _unverified(message)))
        where = image.public.provenance
        try:
            verified = envelope.verify(
                data, self.keys, self.tracer.runner, self.tracer.environ, where=where
            )
            stated = provenance.parse(verified.payload, where)
        except (SigningError, RepositoryError) as error:
            # What was released before a key was changed is signed by the former one.
            former = "; where the key was changed since, give the former one, too: --key FILE"
            is_signature = isinstance(error, SigningError)
            message = f"{error.message}{former}" if is_signature else error.message
            return _Statement(checks=(same, _broken(message)))
        if differing := _differences(image, stated):
            return _Statement(checks=(same, _broken(f"{where} is not about this: {differing}")))
        checks = [same, _verified(f"signed by {', '.join(verified.signers)}"),
                  _verified("it is about this build, its disk and all beside it")]  # fmt: skip
        if not self.tracer.trusted:
            checks.append(_unverified("whose key that is: compare it, or give it with --key"))
        return _Statement(checks=tuple(checks), stated=stated)


def _differences(image: ReleasedImage, stated: Provenance) -> str:
    """Name what a statement says otherwise than the release; empty where it says the same."""
    # Every field that a manifest gives is compared; the origin is the publisher's word, and signed.
    expected = provenance.of(image.manifest, stated.origin, also=image.also)
    differing = [
        f.name for f in fields(expected) if getattr(expected, f.name) != getattr(stated, f.name)
    ]
    apart = {*_disks(image), layout.PROVENANCE}
    beside = {n: o.sha256 for n, o in image.objects.items() if n not in apart}
    return ", ".join([*differing, *(["byproducts"] if beside != stated.origin.byproducts else [])])


def _disks(image: ReleasedImage) -> set[str]:
    """Return the file names of the disk, in every form."""
    public = image.public
    keys = (public.disk, *map(public.also, image.also))
    return {key.removeprefix(public.folder) for key in keys}


def _others(image: ReleasedImage) -> list[str]:
    return sorted(image.objects.keys() - {*_disks(image), layout.MANIFEST, layout.PROVENANCE})


def _commit(image: ReleasedImage, stated: Provenance | None) -> str:
    commit = image.manifest.commit
    if stated is None:
        return commit
    return f"{commit} of {stated.origin.repository or 'no public repository'}, {stated.origin.spec}"


def _commit_checks(image: ReleasedImage, stated: Provenance | None) -> Iterator[Check]:
    yield (
        _verified("the signed statement names it")
        if stated
        else _unverified("repository and spec: no signed statement names them")
    )
    if image.manifest.commit == NO_COMMIT:
        yield _unverified("which files it was built from: no commit has them")
    elif image.manifest.dirty:
        yield _unverified("which files it was built from: they differed from the commit")
    else:
        yield _unverified("that the commit makes these bytes: the builder is trusted with that")


def _stands_on(image: ReleasedImage) -> str:
    base, bound = image.manifest.base, image.base
    text = f"{base.ref}, {base.digest}" + (f", {base.detail}" if base.detail else "")
    return f"{text}, revision {bound.revision}" if bound else text


def _released(release: Release) -> str:
    by, when = release.released, provenance.moment(release.published)
    text = f"{release.key} by {by.actor or 'nobody named'}, {when:%Y-%m-%d %H:%M:%SZ}"
    text += f", of commit {by.commit}"
    return f"{text}, {by.run}" if by.run else text


def _release_checks(release: Release) -> Iterator[Check]:
    yield _verified("the record binds this manifest and every object by its sha256")
    if release.released.dirty:
        yield _unverified("what the publisher had checked out: it differed from the commit")
    yield _unverified("who released it, and when: nobody signs that")


def _link(name: str, statement: str, checks: Sequence[Check] | Iterator[Check]) -> Link:
    return Link(name=name, what=statement, checks=tuple(checks))


def _verified(subject: str) -> Check:
    return Check(outcome=CheckResult.VERIFIED, what=subject)


def _unverified(subject: str) -> Check:
    return Check(outcome=CheckResult.UNVERIFIED, what=subject)


def _broken(subject: str) -> Check:
    return Check(outcome=CheckResult.BROKEN, what=subject)
