"""Ask outside what a build would get today: Debian's archives, template sources, signed lists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lago_images.building.bases import libguestfs, signed_list
from lago_images.building.bases.bootstrap.apt import Apt, Upgrade, read_archives
from lago_images.building.bases.bootstrap.debian import Mirrors, host_mirrors, recipe
from lago_images.building.model import Context
from lago_images.console import first_of
from lago_images.errors import Error, HostError, RepositoryError
from lago_images.host.process import Runner
from lago_images.planning.chains import in_order
from lago_images.planning.history import Holdings
from lago_images.planning.model import Tree
from lago_images.repository.browsing.queries import packages_of
from lago_images.repository.records.changes import Package, PackageChanges, Upstream
from lago_images.repository.records.layout import ImageId
from lago_images.repository.records.manifest import BaseRecord
from lago_images.repository.records.release import Release
from lago_images.repository.records.standing import standing
from lago_images.repository.records.state import State
from lago_images.specs.bases import SIGNED_LIST
from lago_images.specs.commands import FETCHING
from lago_images.specs.model import BaseKind, Spec

_NOTHING = PackageChanges(added=(), removed=(), upgraded=())
# As many packages as an explanation names.
_SHOWN = 3


def gather(
    tree: Tree, holdings: Holdings, state: State, context: Context, runner: Runner, folder: Path
) -> Mapping[str, Upstream]:
    """Find what is outdated of the images that are published as their specs are now.

    Nothing is raised for a source that does not answer: it is warned of, and what it has is not
    known.

    Args:
        tree: The specs.
        holdings: What the repository holds of them.
        state: The repository, for the lists of packages.
        context: The run's.
        runner: Starts apt, gpg and gpgv.
        folder: An empty folder, which the caller removes.

    Returns:
        By name, for each image whose release has the fingerprint of its spec.
    """
    reader = _Reader(tree=tree, state=state, context=context, runner=runner, folder=folder)
    for name in in_order(tree.specs):
        spec = tree.specs[name]
        held = holdings.images.get(ImageId(name, spec.arch))
        current = held.current if held else None
        # Any other is built anyway.
        if current and current.built and current.fingerprint == tree.fingerprints[name]:
            reader.read(spec, standing(state.history(name, spec.arch))[-1])
    return reader.found


# Without slots: cached_property keeps its value in the instance's __dict__.
@dataclass(frozen=True, kw_only=True)
class _Reader:
    tree: Tree
    state: State
    context: Context
    runner: Runner
    folder: Path
    found: dict[str, Upstream] = field(default_factory=dict)
    upgrades: dict[str, Upgrade] = field(default_factory=dict)
    archives: dict[object, Apt | Error] = field(default_factory=dict)
    bases: dict[object, BaseRecord | Error] = field(default_factory=dict)

    @cached_property
    def mirrors(self) -> Mirrors | None:
        return host_mirrors(self.runner)

    def read(self, spec: Spec, release: Release) -> None:
        root = spec
        while root.base.kind is BaseKind.LAYER:
            root = self.tree.specs[root.base.name]
        if root.base.kind is BaseKind.BOOTSTRAP:
            found = self._packages(spec, root, release)
        else:
            found = self._disk(spec, release)
        self.found[spec.name] = found

    def _packages(self, spec: Spec, root: Spec, release: Release) -> Upstream:
        """Compare what is installed with what the archives of the bootstrap have."""
        if "snapshot" in root.properties:
            return Upstream(packages=_NOTHING)
        try:
            packages = packages_of(self.context.store, release)
        except RepositoryError as error:
            return Upstream(unknown=error.message)
        if packages is None:
            return Upstream(unknown="its list of packages is not in the repository")
        try:
            upgrade = self._apt(root, packages).upgrade(packages)
            self.upgrades[spec.name] = upgrade
            below = self._below(spec, root)
        except Error as error:
            return Upstream(unknown=error.message)
        except OSError as error:
            # The list comes out of a guest, and may be longer than a command line.
            return Upstream(unknown=f"its packages cannot be looked up: {error.strerror}")
        elsewhere = [each for each in upgrade.elsewhere if each not in below.elsewhere]
        return Upstream(
            packages=_beyond(upgrade.changes, below.changes), unknown=_elsewhere(elsewhere)
        )

    def _below(self, spec: Spec, root: Spec) -> Upgrade:
        """Return what a layer's base would get, which is the base's to be built for."""
        if spec is root:
            return Upgrade(changes=_NOTHING, elsewhere=())
        if spec.base.name not in self.upgrades:
            raise HostError(f"what {spec.base.name} would get, its base, is not known")
        return self.upgrades[spec.base.name]

    def _apt(self, root: Spec, packages: tuple[Package, ...]) -> Apt:
        todo = recipe(root, self.mirrors)
        foreign = sorted({each.arch for each in packages} - {"all", todo.arch})
        key = (todo.archives, todo.arch, *foreign)
        if key not in self.archives:
            folder = self.folder / f"archives-{len(self.archives)}"
            try:
                self.archives[key] = read_archives(todo, folder, self.runner, foreign=foreign)
            except Error as error:
                self.context.console.warn(error.message)
                self.archives[key] = error
        apt = self.archives[key]
        if isinstance(apt, Error):
            raise apt
        return apt

    def _disk(self, spec: Spec, release: Release) -> Upstream:
        """Compare the base's digest; what its own package manager would install nobody knows."""
        base, unknown = "", []
        try:
            base = self._other_base(spec, release)
        except Error as error:
            unknown.append(error.message)
        fetching = sorted({each.name for each in spec.operations} & FETCHING)
        if fetching:
            unknown.append(
                f"{', '.join(fetching)} may fetch packages, from sources that only the guest knows"
            )
        return Upstream(base=base, unknown="; ".join(unknown))

    def _other_base(self, spec: Spec, release: Release) -> str:
        """Return what the base is now, where that is another file; else nothing."""
        is_listed = spec.base.kind is BaseKind.SIMPLE and "base-checksums" in spec.properties
        manifest = release.manifest
        if manifest is None or not (is_listed or spec.base.kind is BaseKind.LIBGUESTFS):
            # Of a layer, the base's own entry says it; any other disk is bound by the fingerprint.
            return ""
        named = (spec.properties.get(name, "") for name in SIGNED_LIST)
        key = (spec.base.kind, spec.base.name, spec.arch, *named)
        if key not in self.bases:
            try:
                self.bases[key] = self._look_up(spec)
            except Error as error:
                self.context.console.warn(error.message)
                self.bases[key] = error
        record = self.bases[key]
        if isinstance(record, Error):
            raise record
        return "" if record.digest == manifest.base.digest else f"its base is {record.detail} now"

    def _look_up(self, spec: Spec) -> BaseRecord:
        if spec.base.kind is BaseKind.SIMPLE:
            return signed_list.look_up(spec, self.context, self.runner)
        template = libguestfs.look_up(spec, self.context, self.runner)
        return libguestfs.record(spec, template)


def _beyond(changes: PackageChanges, base: PackageChanges) -> PackageChanges:
    """Return the changes of a layer that are not its base's."""
    return PackageChanges(
        added=tuple(each for each in changes.added if each not in base.added),
        removed=tuple(each for each in changes.removed if each not in base.removed),
        upgraded=tuple(each for each in changes.upgraded if each not in base.upgraded),
    )


def _elsewhere(packages: Sequence[Package]) -> str:
    if not packages:
        return ""
    names = first_of([each.name for each in packages], _SHOWN)
    return f"its archives do not have {names} in the installed version, or a newer one"
