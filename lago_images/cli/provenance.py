"""``repo provenance``: the chain from a commit to the bytes of a disk."""

from pathlib import Path

import click

from lago_images.cli.answers import Trace
from lago_images.cli.completion import published_names
from lago_images.cli.documents import FORMAT, document
from lago_images.cli.invocation import Invocation, finish
from lago_images.cli.tables import tell
from lago_images.cli.values import REVISION
from lago_images.host.process import Runner
from lago_images.repository.rendering.signing import key_fingerprint
from lago_images.repository.verifying.chain import Chain, CheckResult, Tracer


@click.command()
@click.argument("name", shell_complete=published_names)
@click.option("--arch", default="", help="Of an image with several architectures.")
@click.option("--revision", type=REVISION, help="By default the one clients get.")
@click.option("--deep", is_flag=True, help="Read every disk of the chain.")
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A public key to trust, armoured; by default those that the repository serves.",
)
@FORMAT
@click.pass_obj
def provenance(
    invocation: Invocation,
    name: str,
    arch: str,
    revision: int | None,
    deep: bool,
    keys: tuple[Path, ...],
    form: str,
) -> None:
    """Follow an image from the commit of its spec to the bytes of its disk.

    Of each link it says what was verified, and what was not. It ends with 1 when one is broken.
    """
    runner = Runner(environ=invocation.environ)
    trusted = tuple(path.read_bytes() for path in keys)
    for armour in trusted:
        # Here a wrong file is the caller's mistake; later it would look like a broken link.
        key_fingerprint(armour, invocation.environ, runner)
    tracer = Tracer(
        store=invocation.store(),
        runner=runner,
        environ=invocation.environ,
        console=invocation.console,
        trusted=trusted,
        deep=deep,
    )
    chain = tracer.trace(name, arch=arch, revision=revision)
    if form == "json":
        broken = tuple(chain.broken)
        trace = Trace(url=chain.url, steps=chain.steps, broken=broken, ok=not broken)
        click.echo(document(trace))
    else:
        _show(chain)
    finish(succeeded=not chain.broken)


def _show(chain: Chain) -> None:
    for step in chain.steps:
        tell(f"{step.name} ({step.arch}), revision {step.revision}")
        for link in step.links:
            tell(f"  {link.name}: {link.what}", indent="    ")
            for check in link.checks:
                tell(f"    {check.outcome}: {check.what}", indent="      ")
    checks = [c.outcome for step in chain.steps for link in step.links for c in link.checks]
    broken = f"broken: {', '.join(chain.broken)}" if chain.broken else "no link is broken"
    verified, unverified = checks.count(CheckResult.VERIFIED), checks.count(CheckResult.UNVERIFIED)
    tell(f"{chain.url}: {verified} verified, {unverified} not verified; {broken}")
