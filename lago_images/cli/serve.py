"""``lago-images serve``: a directory or a bucket over HTTP."""

from collections.abc import Iterator

import click

from lago_images.building.boot import machines
from lago_images.cli.answers import Served
from lago_images.cli.documents import FORMAT, document
from lago_images.cli.invocation import Invocation
from lago_images.cli.values import PORT_NUMBER
from lago_images.errors import UsageError
from lago_images.repository.rendering import client_setup
from lago_images.repository.serving.server import Server
from lago_images.settings import FILE
from lago_images.specs.folder import without_specs

# The default base-url of a directory has this port: see rendering/site.py.
PORT = 8181


@click.command()
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(file_okay=False))
@click.option(
    "--port",
    type=PORT_NUMBER,
    default=PORT,
    show_default=True,
    help="The TCP port; 0 for a free one.",
)
# This machine alone by default: what is served may be a private bucket.
@click.option(
    "--bind",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="The address of this machine to listen at; 0.0.0.0 for all of them.",
)
@FORMAT
@click.pass_obj
def serve(invocation: Invocation, folder: str | None, port: int, bind: str, form: str) -> None:
    """Serve a repository over HTTP until Ctrl-C.

    DIR is a directory repository; without it, the repository of the settings is served, which
    may also be in S3: then this is a gateway to a bucket that clients cannot read. Only what is
    released is served. The clients' commands are printed on stdout, ready to paste, or in one JSON
    document, when it takes requests.
    """
    if folder is not None:
        invocation.use_repository(folder)
    store = invocation.store()
    # To a store a mistyped path is a repository with nothing in it.
    if store.folder is not None and not store.folder.exists():
        hint = "name that of a repository; lago-images build makes one"
        if not invocation.has_specs and "repository" not in invocation.overrides:
            hint = without_specs(invocation.root)
        raise UsageError(f"there is no folder {store.folder}", hint=hint)
    published = client_setup.read(store)
    with Server(store, invocation.console, bind=bind, port=port) as server:
        try:
            _warn_of_elsewhere(published, server.url, invocation)
            served = Served(
                url=server.url,
                repository=store.url,
                name=published.name,
                use=client_setup.use(published, server.url, machines.host()),
            )
            click.echo(document(served) if form == "json" else "\n".join(_lines(served)))
            server.serve_forever()
        except KeyboardInterrupt:
            # The way to end it, so no failure: the exit code is 0.
            invocation.console.info("stopped")


def _warn_of_elsewhere(
    published: client_setup.ClientView, url: str, invocation: Invocation
) -> None:
    for base in client_setup.elsewhere(published, url):
        invocation.console.warn(
            f"repo.metadata sends lago to {base} for disks, not to {url}; if clients are to come "
            f"here: set base-url in {FILE}, then: lago-images repo refresh"
        )


def _lines(served: Served) -> Iterator[str]:
    yield f"# {served.name} at {served.url}"
    for each in served.use:
        yield f"# {each.title}: {each.about}"
        yield from each.text.splitlines()
