"""Attestations of GitHub: which workflow built a build, as ``gh attestation verify`` checks it.

The build job attests the manifest, whose digest of the disk binds the rest, and the disk itself for
users. The certificate names the workflow that signed, and its commit.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from lago_images.building.model import Result
from lago_images.errors import CommandError, UsageError
from lago_images.host.process import Runner
from lago_images.repository.records.manifest import Manifest

SIGNER = "LAGO_IMAGES_SIGNER"
FILE = "subjects.sha256"
_SIGNER = re.compile(r"([\w.-]+/[\w.-]+/\.github/workflows/[\w.-]+\.ya?ml)@([0-9a-f]{40})")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_SLSA = "https://slsa.dev/provenance/v1"
_TIMEOUT = 120.0
# What gh needs of the environment: the token, and which server.
_PASSED = ("GH_TOKEN", "GH_HOST")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """The workflow whose attestations count.

    Attributes:
        repository: ``owner/name`` of the specs, whose builds they are.
        workflow: ``owner/name/.github/workflows/FILE``.
        commit: The workflow's own, in full: another one may do anything.
        environ: Where gh's token is.
    """

    repository: str
    workflow: str
    commit: str
    environ: Mapping[str, str] = field(repr=False)


def signer_of(environ: Mapping[str, str]) -> Signer:
    """Read the pinned workflow from what ``publish-images.yml`` sets.

    Raises ``UsageError`` where that is not set: attestations are GitHub Actions' alone.
    """
    match = _SIGNER.fullmatch(environ.get(SIGNER, ""))
    repository = environ.get("GITHUB_REPOSITORY", "")
    if not match or not _REPOSITORY.fullmatch(repository):
        raise UsageError(
            f'promote = "attested" is for publish-images.yml on GitHub: {SIGNER} does not name '
            "that workflow and its commit",
            hint='set promote to "never" or "same-repository" elsewhere, or leave this command to '
            "the workflow",
        )
    return Signer(repository=repository, workflow=match[1], commit=match[2], environ=environ)


def objection(signer: Signer, manifest: Manifest) -> str | None:
    """Return why the attestation of a build does not count; None when it does.

    Raises ``ToolMissingError`` without gh.
    """
    runner = Runner(environ=signer.environ)
    with TemporaryDirectory(prefix="lago-images-attested-") as folder:
        file = Path(folder) / "manifest.json"
        file.write_bytes(manifest.to_json())
        argv = [
            *("gh", "attestation", "verify", str(file)),
            *("--repo", signer.repository),
            *("--signer-workflow", signer.workflow, "--signer-digest", signer.commit),
            # On a machine of somebody's own, somebody may have done anything.
            *("--deny-self-hosted-runners", "--predicate-type", _SLSA),
        ]
        passed = {name: signer.environ[name] for name in _PASSED if name in signer.environ}
        doing = f"asking for the attestation of {manifest.key.staging.folder}"
        try:
            runner.run(argv, env=passed, timeout=_TIMEOUT, doing=doing)
        except CommandError as error:
            return (
                f"no attestation says that {signer.workflow} at {signer.commit[:12]} built "
                f"{manifest.key.staging.folder}: {error.last_words}"
            )
    return None


def judge(environ: Mapping[str, str]) -> Callable[[Manifest], str | None]:
    """Return ``objection`` for the pinned workflow; raises as ``signer_of`` does."""
    return partial(objection, signer_of(environ))


def subjects(results: Iterable[Result]) -> str:
    """Return what is to be attested, as ``sha256sum`` writes it: each disk and its manifest."""
    lines = []
    for result in results:
        if result.manifest is not None:
            key = result.manifest.key
            lines += [
                f"{result.manifest.disk.sha256}  {key.staging.disk.rpartition('/')[2]}",
                *(
                    f"{file.sha256}  {key.staging.also(form).rpartition('/')[2]}"
                    for form, file in result.manifest.also.items()
                ),
                f"{sha256(result.manifest.to_json()).hexdigest()}  {key.build_id}/manifest.json",
            ]
    return "".join(f"{line}\n" for line in lines)
