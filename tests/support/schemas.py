"""The JSON Schemas in ``docs/schemas``, of the documents that scripts read.

``python -m tests.support.schemas`` writes them anew.
"""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
from jsonschema import Draft202012Validator

from lago_images.cli.answers import (
    CacheClearing,
    CacheContent,
    Cleaning,
    HostReport,
    LintReport,
    LossAcceptance,
    PlanReport,
    Refreshment,
    Served,
    SetUp,
    Trace,
    TriedDisk,
    Verification,
    Withdrawal,
    WithdrawalPreview,
)
from lago_images.cli.run_report import RunReport
from lago_images.jobs.reproduce import Reproduction
from lago_images.jobs.results import Publication, Results
from lago_images.jobs.timings import Timings
from lago_images.planning.model import Plan
from lago_images.repository.browsing.documents import Comparison, ImagePage, Listing, Log
from lago_images.repository.records.loss import AcceptedLoss
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.outdated import Outdated
from lago_images.repository.records.release import Release
from lago_images.repository.rendering.documents import Images, Latest

FOLDER = Path(__file__).parents[2] / "docs/schemas"
DOCUMENTS: dict[str, Any] = {
    "manifest": Manifest,
    "release": Release,
    "outdated": Outdated,
    "accepted-loss": AcceptedLoss,
    "plan": Plan,
    "results": Results,
    "timings": Timings,
    "publication": Publication,
    "run": RunReport,
    "report": PlanReport,
    "trial": TriedDisk,
    "set-up": SetUp,
    "served": Served,
    "host": HostReport,
    "image-list": Listing,
    "image-page": ImagePage,
    "log": Log,
    "comparison": Comparison,
    "lint": LintReport,
    "verification": Verification,
    "provenance-trace": Trace,
    "reproduction": Reproduction,
    "cleaning": Cleaning,
    "loss-acceptance": LossAcceptance,
    "withdrawal": Withdrawal,
    "withdrawal-preview": WithdrawalPreview,
    "refreshment": Refreshment,
    "cache": CacheContent,
    "cache-clearing": CacheClearing,
    "images": Images,
    "latest": Latest,
}

# The schema of what each command prints with --format json. A dry run of some is another document.
PRINTED_BY = {
    "lint": ("lint",),
    "try": ("trial",),
    "build": ("run",),
    "doctor": ("host",),
    "init": ("set-up",),
    "serve": ("served",),
    "ci plan": ("plan",),
    "ci build": ("run",),
    "ci publish": ("run",),
    "ci rebuild": ("run", "plan"),
    "ci report": ("report",),
    "cache list": ("cache",),
    "cache clear": ("cache-clearing",),
    "repo list": ("image-list",),
    "repo show": ("image-page",),
    "repo log": ("log",),
    "repo diff": ("comparison",),
    "repo refresh": ("refreshment",),
    "repo verify": ("verification",),
    "repo provenance": ("provenance-trace",),
    "repo reproduce": ("reproduction",),
    "repo gc": ("cleaning",),
    "repo accept-loss": ("loss-acceptance",),
    "repo yank": ("withdrawal", "withdrawal-preview"),
    "repo rollback": ("withdrawal", "withdrawal-preview"),
}


def validator(name: str) -> Draft202012Validator:
    """What checks documents of a published schema."""
    return Draft202012Validator(json.loads((FOLDER / f"{name}.schema.json").read_bytes()))


def described(kind: type) -> dict[str, Any]:
    """The schema of a document, with what the reader checks beside its fields' types."""
    found = msgspec.json.schema(kind)
    for about in found["$defs"].values():
        if "description" in about:
            about["description"] = in_json(about["description"])
    with_number = {each.__name__: each.SCHEMA for each in DOCUMENTS.values()}
    for name, about in found["$defs"].items():
        if "properties" in about:
            about["additionalProperties"] = False
        if name in with_number:
            about["properties"] = {"schema": {"const": with_number[name]}, **about["properties"]}
            about["required"] = ["schema", *about["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def in_json(text: str) -> str:
    """A docstring's text in the words of JSON."""
    return re.sub(r"\bNone\b", "null", text)


def rendered(kind: type) -> str:
    return json.dumps(described(kind), indent=2) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, kind in DOCUMENTS.items():
        (FOLDER / f"{name}.schema.json").write_text(rendered(kind))
