"""Print what a command tells as a document: JSON for scripts, of a schema that is published."""

import json
from typing import ClassVar, Protocol

import click
import msgspec

FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people, or as a JSON document.",
)


class Document(Protocol):
    """A class of documents, with the number of its schema."""

    SCHEMA: ClassVar[int]


def as_json(plain: object) -> str:
    """Return plain values as JSON with an item a line."""
    # Names are read by people, too, and all output is UTF-8.
    return json.dumps(plain, indent=1, ensure_ascii=False)


def document(value: Document) -> str:
    """Return a document as JSON, with its schema's number first."""
    return as_json({"schema": value.SCHEMA, **msgspec.to_builtins(value, enc_hook=dict)})
