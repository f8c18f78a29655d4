"""Choose the engine that carries out a spec's commands, and use it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lago_images.building.bases.prepared import Prepared
from lago_images.building.customise import sysprep
from lago_images.building.customise.namespace import rules
from lago_images.building.customise.namespace.customise import customise as in_namespaces
from lago_images.building.customise.namespace.unpack_ext4 import UnsupportedError
from lago_images.building.customise.namespace.user_namespace import UnavailableError
from lago_images.building.model import Context
from lago_images.building.outcome import described, last_lines
from lago_images.errors import BuildError, CommandError, Error, HostError, ToolMissingError
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner
from lago_images.repository.records.manifest import EngineRecord
from lago_images.specs.host_folder import ForbiddenPathError, HostFolder
from lago_images.specs.model import BaseKind, Spec

_LARGEST_SCRIPT = 2**20
# Why namespaces were taken.
_CHOSEN = f"engine = {rules.NAMESPACE}"
_NOTHING_AGAINST = "base, commands, disk and host allow it"
# Of namespaces it is told when all succeeded, of the appliance before.
_PLACES = {rules.NAMESPACE: "ran in namespaces", rules.APPLIANCE: "run in the appliance"}
# Lines of each engine's output that are shown where both failed.
_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Customised:
    """A disk with a spec's commands on it, and the engine that did them; None where none did."""

    prepared: Prepared
    engine: EngineRecord | None


def customise(
    spec: Spec,
    prepared: Prepared,
    workdir: Path,
    context: Context,
    runner: Runner,
    *,
    accel: Acceleration,
) -> Customised:
    """Apply a spec's operations to its prepared disk and clean it, as ``sysprep.customise`` does.

    With ``engine = "auto"`` namespaces are used where they are safe and mean the same, and what
    does not succeed in them is done again in the appliance, whose word counts.

    Raises:
        BuildError: As ``sysprep.customise`` does; with what failed in namespaces before it, if
            anything did; with ``engine = "namespace"`` also where the spec or this host is not for
            namespaces.
    """
    if not spec.operations and spec.base.kind is BaseKind.BOOTSTRAP:
        return Customised(prepared=prepared, engine=None)
    why = _why_appliance(spec, context)
    first: Exception | None = None
    if not why:
        try:
            done = in_namespaces(spec, prepared, workdir, context, runner)
        except (UnsupportedError, UnavailableError, ToolMissingError) as error:
            why = str(error)
        # Also for want of room, or where its folder's file system keeps no owners or attributes.
        except (BuildError, CommandError, HostError, OSError) as error:
            if context.settings.engine == rules.NAMESPACE:
                raise
            why, first = f"it did not succeed in namespaces: {error}", error
        else:
            reason = _CHOSEN if context.settings.engine == rules.NAMESPACE else _NOTHING_AGAINST
            record = _told(spec, context, runner, rules.NAMESPACE, reason)
            return Customised(prepared=done, engine=record)
    if context.settings.engine == rules.NAMESPACE:
        raise BuildError(
            f"{spec.name} cannot be built in namespaces: {why}",
            hint='engine = "auto" takes the appliance for what namespaces cannot do',
        )
    record = _told(spec, context, runner, rules.APPLIANCE, why)
    try:
        done = sysprep.customise(spec, prepared, workdir, context, runner, accel=accel)
    except (Error, OSError) as second:
        if first is None:
            raise
        raise _both(first, second) from second
    return Customised(prepared=done, engine=record)


def _both(first: Exception, second: Error | OSError) -> BuildError:
    """Return the failure of both engines: that in namespaces, then what came of the appliance."""
    told, again, before = described(first), str(second), last_lines(first)
    if again == str(first):
        message = f"{told}; it was tried again in the appliance, with the same result"
        return BuildError(message, tail=before or last_lines(second))
    place, failed, why = again.partition(" failed: ")
    # Of the same line it is not said again which that is.
    again = why if failed and told.startswith(place + failed) else again
    after = last_lines(second)
    return BuildError(
        f"{told}; it was tried again in the appliance: {again}",
        tail=[*before[-_SHOWN:], *(("in the appliance:", *after[-_SHOWN:]) if after else ())],
        hint=second.hint if isinstance(second, Error) else None,
    )


def _why_appliance(spec: Spec, context: Context) -> str:
    settings = context.settings
    if settings.engine == rules.APPLIANCE:
        return "engine = appliance"
    if not rules.is_allowed(settings, context.environ):
        return "the pull request may be from a fork"
    return rules.why_not(spec, _reader(context.root))


def _reader(root: Path) -> Callable[[str], str]:
    def read(path: str) -> str:
        try:
            data = HostFolder(root).read(path, most=_LARGEST_SCRIPT)
        except (OSError, ForbiddenPathError):
            # The copy of host files names each that cannot be used.
            return ""
        return os.fsdecode(data)

    return read


def _told(spec: Spec, context: Context, runner: Runner, name: str, why: str) -> EngineRecord:
    """Return the record of an engine, which the console and the log are told of."""
    line = f"{spec.name}: its commands {_PLACES[name]} ({why})"
    context.console.info(line)
    runner.note(line)
    return EngineRecord(name=name, why=why)
