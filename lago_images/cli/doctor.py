"""``lago-images doctor``: check the host, the settings, the store and the signing key."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import click

from lago_images.building.customise.versions import lacking
from lago_images.cli.answers import HostReport
from lago_images.cli.documents import FORMAT, document
from lago_images.cli.invocation import Invocation, command, finish
from lago_images.cli.tables import table, terminal_width
from lago_images.errors import (
    MANUAL,
    CommandError,
    Error,
    KeylessError,
    SettingsError,
    SigningError,
    StorageError,
    ToolMissingError,
    UnsafeStoreError,
)
from lago_images.first_steps import after_doctor
from lago_images.host.doctor import Check, State, host_checks
from lago_images.host.process import Runner
from lago_images.planning.key_files import exposures
from lago_images.repository.publishing.key_change import left_behind
from lago_images.repository.publishing.publisher import to_publish
from lago_images.repository.records.layout import INDEX, RELEASES
from lago_images.repository.rendering.signing import Signer, open_signer
from lago_images.repository.rendering.site import site_of
from lago_images.repository.verifying.findings import Severity
from lago_images.repository.verifying.web import base_url_problem
from lago_images.settings import DEFAULT_REPOSITORY
from lago_images.specs.commands import COMMANDS
from lago_images.specs.folder import folders_below, without_specs
from lago_images.storage.base import Store

_SETTINGS = f"{MANUAL}/reference/settings.md"
_DO = {"settings": f"correct them: {_SETTINGS} has all of them"}
_MARKS = {State.OK: "ok", State.WARNING: "warning", State.MISSING: "MISSING"}


@click.command()
@FORMAT
@click.option("--host", is_flag=True, help="Only the host: no specs, store or signing key.")
@click.pass_obj
def doctor(invocation: Invocation, form: str, host: bool) -> None:
    """Check what this host lacks, and say what to do about it.

    Exits with 1 if something is missing.
    """
    checks = tuple(
        replace(check, do=invocation.completed(check.do))
        for check in _checks(invocation, host=host)
    )
    ok = not any(check.state is State.MISSING for check in checks)
    if form == "json":
        click.echo(document(HostReport(checks=checks, ok=ok)))
    else:
        for line in _lines(checks, terminal_width()):
            click.echo(line)
    for line in _next(checks, invocation):
        invocation.console.info(line)
    finish(succeeded=ok)


def _lines(checks: tuple[Check, ...], width: int | None) -> list[str]:
    rows = []
    for check in checks:
        rows.append((_MARKS[check.state], check.name, check.found))
        if check.do:
            rows.append(("", "", f"-> {check.do}"))
    return table(("state", "check", "found"), rows, width=width)


def _next(checks: tuple[Check, ...], invocation: Invocation) -> Iterator[str]:
    """Yield what to do next: what is missing, in its order, else the first commands."""
    root, named = invocation.root, invocation.overrides.get("repository")
    missing = [check for check in checks if check.state is State.MISSING]
    for number, check in enumerate(missing, 1):
        yield f"{number}. {check.name}: {check.do}"
    if missing:
        yield f"then: {command(root, named, 'doctor')} again"
    elif refused := [check for check in checks if _is_refused(check)]:
        yield f"next, before anything is published from here: {refused[0].do}"
    elif invocation.has_specs:
        settings = invocation.settings
        steps = after_doctor(settings.repository, base_url=settings.base_url)
        yield f"next: {invocation.completed(steps)}"
    elif folders_below(invocation.root):
        yield f"next: {without_specs(invocation.root)}"
    else:
        yield "next, in a folder for specs: lago-images init"


def _checks(invocation: Invocation, *, host: bool) -> Iterator[Check]:
    runner, settings = Runner(environ=invocation.environ), None
    try:
        settings = invocation.settings
    except SettingsError as error:
        yield _failure("settings", error)
    need = settings is not None and settings.require_kvm
    yield from host_checks(runner, invocation.environ, require_kvm=need)
    yield from _commands(runner)
    if host:
        return
    if settings is not None:
        yield _specs(invocation)
    yield _git(invocation)
    if settings is not None:
        store = _readable(invocation)
        yield from _store(invocation, store)
        yield from _signing(invocation, runner, None if isinstance(store, Error) else store)
        yield from _key_files(invocation)


def _commands(runner: Runner) -> Iterator[Check]:
    """Check the commands of the installed virt-sysprep; it may be missing, which is said above."""
    try:
        lacks = lacking(runner)
    except (ToolMissingError, CommandError):
        return
    if lacks:
        yield Check(
            name="commands",
            state=State.WARNING,
            found=f"the installed virt-sysprep does not have {', '.join(lacks)}",
            do="use run-command with the guest's own program, which every version has",
        )
        return
    yield Check(
        name="commands",
        state=State.OK,
        found=f"virt-sysprep has all {len(COMMANDS)} that a spec may use",
    )


def _specs(invocation: Invocation) -> Check:
    folder = invocation.root / invocation.settings.specs
    if folder.is_dir():
        return Check(name="specs", state=State.OK, found=f"in {folder}")
    return Check(
        name="specs",
        state=State.WARNING,
        found=f"{folder} does not exist",
        do=without_specs(invocation.root),
    )


def _git(invocation: Invocation) -> Check:
    try:
        repository = invocation.git
    except Error as error:
        return _failure("git", error)
    if repository is not None:
        return Check(name="git", state=State.OK, found="the specs are in a git repository")
    return Check(
        name="git",
        state=State.WARNING,
        found=f"{invocation.root} is not in a git repository: reasons and commits are not known",
        do="git init, and commit the specs",
    )


def _readable(invocation: Invocation) -> Store | Error:
    """Return the store, once it was read; else why it cannot be."""
    try:
        store = invocation.store_to_publish()
        next(iter(store.list(RELEASES)), None)
    except Error as error:
        return error
    return store


def _store(invocation: Invocation, store: Store | Error) -> Iterator[Check]:
    """Tell of the store; probe the conditional writes of one that somebody chose.

    What of it needs no store is said beside a store that does not answer.
    """
    settings = invocation.settings
    if isinstance(store, Error):
        yield _failure("store", store)
        yield _base_url(invocation, None)
        return
    state = f"{store.url} can be read"
    if store.folder is not None and not store.folder.exists():
        state = f"{store.folder} does not exist: the first build makes it"
    yield Check(name="store", state=State.OK, found=state)
    yield _base_url(invocation, store)
    if settings.repository == DEFAULT_REPOSITORY:
        return
    name = "conditional writes"
    try:
        store.ensure_safe_writes(single_writer=settings.single_writer, console=invocation.console)
    except UnsafeStoreError as error:
        yield _failure(name, error)
    except StorageError as error:
        yield Check(
            name=name,
            state=State.WARNING,
            found=f"not tried: {error.message}",
            do=f"only the publisher needs to write; if that is you, {_how_to_write(error)}",
        )
    else:
        yield Check(name=name, state=State.OK, found="they are supported")


def _how_to_write(error: StorageError) -> str:
    # Without credentials no policy lets anybody write who should not.
    if isinstance(error, KeylessError) and error.hint:
        return error.hint
    return "check the bucket's policy"


def _base_url(invocation: Invocation, store: Store | None) -> Check:
    """Check the clients' URL; that of a bucket with an index is asked for it, as clients do.

    ``store`` is None where it does not answer.
    """
    name, settings = "base-url", invocation.settings
    try:
        base_url = site_of(settings, store.url if store else settings.repository).base_url
    except SettingsError as error:
        return _failure(name, error)
    if store is None:
        return Check(name=name, state=State.OK, found=base_url)
    try:
        base_url = site_of(to_publish(store, settings), store.url).base_url
        store.head(INDEX)
    except StorageError:
        # Mostly nothing was published there, so that there is nothing to ask for.
        return Check(name=name, state=State.OK, found=base_url)
    finding = base_url_problem(store, base_url, invocation.environ)
    if finding is None:
        return Check(name=name, state=State.OK, found=base_url)
    state = State.MISSING if finding.severity is Severity.PROBLEM else State.WARNING
    return Check(name=name, state=state, found=f"{base_url}: {finding.what}", do=finding.repair)


def _signing(invocation: Invocation, runner: Runner, store: Store | None) -> Iterator[Check]:
    settings = invocation.settings
    references = [text for text in settings.signing_key.split(",") if text.strip()]
    whole = _keys(invocation, runner, settings.signing_key, store)
    # Of several keys the first that is wrong hides the others.
    is_wrong = whole.state is State.MISSING
    each = [_keys(invocation, runner, text) for text in references] if is_wrong else []
    yield from [check for check in each if check.do] or [whole]


def _keys(
    invocation: Invocation, runner: Runner, reference: str, store: Store | None = None
) -> Check:
    """Try to sign by what a reference names, and compare it with what signed in the store."""
    name, environ = "signing", invocation.environ
    settings = replace(invocation.settings, signing_key=reference)
    try:
        with open_signer(settings, environ, runner) as signer:
            keys = ", ".join(key.fingerprint for key in signer.keys)
            if store is not None and (refused := _refused(store, signer, environ)):
                return refused
    except Error as error:
        return _failure(name, error)
    if keys:
        return Check(name=name, state=State.OK, found=f"it works with {keys}")
    return Check(name=name, state=State.OK, found="no signing-key is set: nothing is signed")


def _is_refused(check: Check) -> bool:
    return check.name == "signing" and check.state is State.WARNING


def _refused(store: Store, signer: Signer, environ: Mapping[str, str]) -> Check | None:
    """Return why the next publication will be refused for its keys; None where it will not."""
    error: Error | None
    try:
        error = left_behind(store, signer, environ)
    except (StorageError, SigningError) as failure:
        error = failure
    if error is None:
        return None
    # Who has no key at all may be no publisher.
    only = "" if signer.keys else "only the publisher needs it; if that is you, "
    return Check(
        name="signing",
        state=State.WARNING,
        found=f"{error.message}: a publication from here will be refused",
        do=f"{only}{error.hint or 'lago-images repo verify tells more'}",
    )


def _key_files(invocation: Invocation) -> Iterator[Check]:
    try:
        for exposure in exposures(invocation.settings, lambda: invocation.git):
            state = State.MISSING if exposure.is_public else State.WARNING
            yield Check(name="signing key", state=state, found=exposure.what, do=exposure.do)
    except Error as error:
        yield _failure("signing key", error)


def _failure(name: str, error: Error) -> Check:
    return Check(
        name=name,
        state=State.MISSING,
        found=error.message.replace("\n", "; "),
        do=error.hint or _DO.get(name, "see lago-images --help"),
    )
