"""``lago-images init``: write the files of a new specs repository."""

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import click
from click.core import ParameterSource

from lago_images.addresses import is_bucket, refusal
from lago_images.ci import scaffold
from lago_images.cli.answers import SetUp
from lago_images.cli.documents import FORMAT, document
from lago_images.cli.invocation import Invocation
from lago_images.cli.targets import FOLDER
from lago_images.errors import Error, SettingsError, UsageError
from lago_images.first_steps import first_steps
from lago_images.planning.git import Git
from lago_images.settings import DEFAULT_REPOSITORY, FILE, Settings, load, misplaced
from lago_images.specs.folder import spec_names
from lago_images.storage.open import from_folder


@click.command()
@click.argument("folder", type=FOLDER, required=False)
@click.option(
    "--promote",
    type=click.Choice(scaffold.PROMOTE),
    default=scaffold.PROMOTE[0],
    show_default=True,
    help="Whose builds become public on merging: the pull request's own, which believes everybody "
    "who may push a branch; only what GitHub attests; or none, and merging builds again.",
)
@FORMAT
@click.pass_context
def init(ctx: click.Context, folder: Path | None, promote: str, form: str) -> None:
    """Set up a specs repository: an example spec, settings, workflow, Jenkinsfile.

    It is made in FOLDER, else in the one that -C names, else here. The settings get what
    --repository says, and for a bucket the workflow gets AWS_ENDPOINT_URL_S3 and AWS_REGION. Files
    that exist are never changed. Beside other specs no example is written, and below the top of a
    git repository neither workflow nor Jenkinsfile, which are not read there.
    """
    invocation: Invocation = ctx.obj
    if folder is not None and invocation.start != Path.cwd():
        raise click.UsageError("FOLDER and -C both name a folder: leave one of them out")
    repository = invocation.overrides.get("repository", DEFAULT_REPOSITORY)
    root = (folder or invocation.start).absolute()
    _refuse_repository(repository, root)
    root.mkdir(parents=True, exist_ok=True)
    git = Git.find(root)
    facts = _facts(invocation, root, git, repository, promote)
    has_specs, is_below = _has_specs(root), bool(git and git.prefix)
    wanted = scaffold.files(facts, example=not has_specs, ci=not is_below)
    written, kept = scaffold.write(root, wanted)
    if form == "json":
        click.echo(document(SetUp(folder=str(root), written=tuple(written), kept=tuple(kept))))
    else:
        for path in written:
            click.echo(f"wrote {path}")
        for path in kept:
            click.echo(f"kept {path}, which exists")
    if has_specs:
        invocation.console.info("no example of a spec was written: there are specs already")
    _tell_what_is_next(invocation, root, facts, git, written)
    given = {"promote"} if ctx.get_parameter_source("promote") != ParameterSource.DEFAULT else set()
    missing = tuple(_unapplied(root, facts, kept, given | invocation.overrides.keys()))
    if missing:
        raise Error(
            "not all options were applied: init changes no file that exists",
            hint=f"edit by hand: {'; '.join(missing)}",
        )


def _facts(
    invocation: Invocation, root: Path, git: Git | None, repository: str, promote: str
) -> scaffold.Facts:
    # Workflows run this project's scripts: they name the commit of this very installation.
    tools, ref = scaffold.tools(scaffold.recorded())
    # Those of a terminal may be another store's, where no bucket is named.
    environ = invocation.environ if is_bucket(repository) else {}
    return scaffold.Facts(
        name=root.name,
        branch=(git and git.branch()) or "main",
        repository=repository,
        tools=tools,
        ref=ref,
        promote=promote,
        endpoint=environ.get("AWS_ENDPOINT_URL_S3", ""),
        region=environ.get("AWS_REGION", ""),
    )


def _has_specs(root: Path) -> bool:
    """Return whether there are specs that are no example of ours."""
    folder = root / Settings().specs
    # What is wrong with a settings file that exists is told by the commands that need it.
    with suppress(SettingsError):
        folder = root / load(root, {}).specs
    return folder.is_dir() and any(name != scaffold.EXAMPLE for name in spec_names(folder))


def _unapplied(
    root: Path, facts: scaffold.Facts, kept: Sequence[str], given: set[str]
) -> Iterator[str]:
    """Find the places to edit where a kept file says something else than a given option."""
    if FILE in kept and given & {"promote", "repository"}:
        settings = load(root, {})
        if "promote" in given and settings.promote != facts.promote:
            yield f'promote = "{facts.promote}" in {FILE}'
        asked = from_folder(facts.repository, root)
        if "repository" in given and from_folder(settings.repository, root) != asked:
            yield f"repository = {json.dumps(facts.repository, ensure_ascii=False)} in {FILE}"
    if scaffold.WORKFLOW in kept and "promote" in given:
        text = (root / scaffold.WORKFLOW).read_text(encoding="utf-8", errors="replace")
        wanted = scaffold.workflow_wants(text, facts.promote)
        if wanted:
            yield f"{wanted} below with: in {scaffold.WORKFLOW}"


def _tell_what_is_next(
    invocation: Invocation,
    root: Path,
    facts: scaffold.Facts,
    git: Git | None,
    written: Sequence[str],
) -> None:
    console = invocation.console
    elsewhere = [] if root.resolve() == Path.cwd() else [os.path.relpath(root)]
    enter = f"{shlex.join(['cd', *elsewhere])}; " if elsewhere else ""
    if git is None:
        console.info(
            f"hint: the folder is not in git yet: {shlex.join(['git', 'init', *elsewhere])}"
        )
    unpinned = [path for path in scaffold.PINNED if path in written]
    # A branch may be moved to other code by whoever may push to it.
    if facts.ref == "main" and unpinned:
        console.info(
            f"hint: put a commit of {facts.tools} in place of its branch main into "
            f"{' and '.join(unpinned)}: behind the @ of uses: and as tools-ref of the workflow, as "
            "commit of the Jenkinsfile"
        )
    if not written:
        return
    default = Settings(repository=facts.repository)
    in_file, settings = _loaded(root, {}, default), _loaded(root, invocation.environ, default)
    first = first_steps(settings.repository, base_url=settings.base_url)
    steps = "; ".join(["lago-images lint", *first])
    manual = f"https://github.com/{facts.tools}/blob/{facts.ref}/docs"
    if git is not None and git.prefix:
        console.warn(
            "this folder is not the top of its git repository: GitHub reads no workflow here, and "
            "CI's scripts work at the top of a checkout; so neither a workflow nor a Jenkinsfile "
            f"was written; call them in a workflow of your own: {manual}/several-repositories.md"
        )
        console.info(f"next: {enter}{steps}")
        return
    console.info(f"next: {enter}{steps}; {manual}/ci.md describes CI")
    if in_file.repository == DEFAULT_REPOSITORY:
        console.info(
            f"for CI: set repository in {FILE} to s3://bucket/prefix: its jobs do not share "
            f"{DEFAULT_REPOSITORY}"
        )


def _loaded(root: Path, environ: Mapping[str, str], default: Settings) -> Settings:
    """Return the settings that a later command will have, or others where a kept file is wrong."""
    try:
        return load(root, environ)
    except SettingsError:
        return default


def _refuse_repository(repository: str, root: Path) -> None:
    """Refuse what every later command would refuse."""
    if refused := refusal(repository):
        raise UsageError(refused.what, hint=refused.hint)
    if problem := misplaced(Settings(repository=repository, folder=root), root):
        raise UsageError(problem.what)
