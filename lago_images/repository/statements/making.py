"""Make the statements about an image that is being published: the SBOM and the provenance."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from lago_images.errors import MANUAL
from lago_images.repository.records.layout import PACKAGES, PROVENANCE, SBOM
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.rendering.signing import Signer
from lago_images.repository.statements import provenance
from lago_images.repository.statements.provenance import Origin

# The publisher cannot know who ran a build: the section says whom it has to trust.
BUILDER = f"{MANUAL}/threat-model.md#who-built-it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """Hold what is needed to state where a build comes from, beside its own files.

    Attributes:
        signer: The repository's keys; without any the provenance is not stated.
        origin: What the manifest does not say; its byproducts are those of ``make``.
    """

    signer: Signer
    origin: Origin

    def make(
        self, manifest: Manifest, files: Mapping[str, bytes], *, also: Collection[str] = ()
    ) -> dict[str, bytes]:
        """Make the statements, by file name, about a build and the small files beside its disk.

        ``also`` are the other forms in which the disk becomes public.

        Raises:
            RepositoryError: The list of packages is none, or the manifest has what cannot be
                stated, such as a commit that is no commit's id.
            SigningError: A key cannot sign.
        """
        # cyclonedx and securesystemslib take a second to import, and few commands publish.
        from lago_images.repository.statements import envelope, sbom  # noqa: PLC0415

        statements = {SBOM: sbom.render(manifest, files.get(PACKAGES))}
        if self.signer.keys:
            # Every file but this statement itself, whose digest cannot be in it.
            beside = {**files, **statements}
            byproducts = {name: hashlib.sha256(data).hexdigest() for name, data in beside.items()}
            origin = replace(self.origin, byproducts=byproducts)
            stated = provenance.of(manifest, origin, also=also)
            statements[PROVENANCE] = envelope.sign(stated.to_json(), self.signer)
        return statements
