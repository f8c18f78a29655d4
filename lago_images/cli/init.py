"""``lago-images init``: write the files of a new specs repository."""

from pathlib import Path

import click

from lago_images.addresses import refusal
from lago_images.ci import scaffold
from lago_images.cli.answers import SetUp
from lago_images.cli.documents import FORMAT, document
from lago_images.cli.invocation import Invocation
from lago_images.errors import UsageError
from lago_images.planning.git import Git
from lago_images.settings import DEFAULT_REPOSITORY, FILE, Settings, misplaced

# The files that name this project's commit.
_PINNED = (".github/workflows/images.yml", "Jenkinsfile")


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), required=False)
@click.option(
    "--promote",
    type=click.Choice(scaffold.PROMOTE),
    default=scaffold.PROMOTE[0],
    show_default=True,
    help="Whose builds become public on merging: the pull request's own, which believes everybody "
    "who may push a branch; only what GitHub attests; or none, and merging builds again.",
)
@FORMAT
@click.pass_obj
def init(invocation: Invocation, folder: Path | None, promote: str, form: str) -> None:
    """Set up a specs repository: an example spec, settings, workflow, Jenkinsfile.

    It is made in FOLDER, else in the one that -C names, else here. The settings get what
    --repository says. Files that exist are never changed.
    """
    if folder is not None and invocation.start != Path.cwd():
        raise click.UsageError("FOLDER and -C both name a folder: leave one of them out")
    repository = invocation.overrides.get("repository", DEFAULT_REPOSITORY)
    root = (folder or invocation.start).absolute()
    _refuse_repository(repository, root)
    root.mkdir(parents=True, exist_ok=True)
    git = Git.find(root)
    # Workflows run this project's scripts: they name the commit of this very installation.
    tools, ref = scaffold.tools(scaffold.recorded())
    facts = scaffold.Facts(
        name=root.name,
        branch=(git and git.branch()) or "main",
        repository=repository,
        tools=tools,
        ref=ref,
        promote=promote,
    )
    written, kept = scaffold.write(root, scaffold.files(facts))
    if form == "json":
        click.echo(document(SetUp(folder=str(root), written=tuple(written), kept=tuple(kept))))
    else:
        for path in written:
            click.echo(f"wrote {path}")
        for path in kept:
            click.echo(f"kept {path}, which exists")
    console = invocation.console
    if git is None:
        console.info("hint: the folder is not in git yet: git init")
    unpinned = [path for path in _PINNED if path in written]
    # A branch may be moved to other code by whoever may push to it.
    if ref == "main" and unpinned:
        console.info(
            f"hint: put a commit of {tools} in place of its branch main into "
            f"{' and '.join(unpinned)}"
        )
    if written:
        manual = f"https://github.com/{tools}/blob/{ref}/docs/ci.md"
        console.info(f"next: lago-images lint; lago-images build; {manual} describes CI")
        if facts.repository == DEFAULT_REPOSITORY:
            console.info(
                f"for CI: set repository in {FILE} to s3://bucket/prefix: its jobs do not share "
                f"{DEFAULT_REPOSITORY}"
            )


def _refuse_repository(repository: str, root: Path) -> None:
    """Refuse what every later command would refuse."""
    if refused := refusal(repository):
        raise UsageError(refused.what, hint=refused.hint)
    if problem := misplaced(Settings(repository=repository, folder=root), root):
        raise UsageError(problem.what)
