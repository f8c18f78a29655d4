"""Does what ``aws s3api`` does, by the library that the command is made of.

So a document's commands are held to AWS's own description of its API: an operation or an option
that there is not, or a value of another form, raises.
"""

import shlex
from pathlib import Path
from typing import Any

import boto3
from botocore import xform_name
from botocore.config import Config
from botocore.model import Shape, StructureShape

from tests.servers.model import Server


def aws(server: Server, home: Path, command: str) -> str:
    """Do ``aws s3api OPERATION --name value``; ``file://`` names files in the home of who calls."""
    program, group, operation, *words = shlex.split(command)
    assert (program, group) == ("aws", "s3api")
    options = dict(zip(words[::2], words[1::2], strict=True))
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name=options.pop("--region", "us-east-1"),
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        config=Config(s3={"addressing_style": "path"}),
    )
    method = operation.replace("-", "_")
    shape = client.meta.service_model.operation_model(
        client.meta.method_to_api_mapping[method]
    ).input_shape
    # As the command itself makes its options.
    known = {f"--{xform_name(name, '-')}": (name, member) for name, member in shape.members.items()}
    arguments = {}
    for option, text in options.items():
        name, member = known[option]
        is_file = text.startswith("file://")
        said = (home / text.removeprefix("file://")).read_text() if is_file else text
        arguments[name] = _value(member, said)
    getattr(client, method)(**arguments)
    return ""


def _value(shape: Shape, text: str) -> Any:
    """Read an option's value; that of a structure in the short form ``Name=value,Name=value``."""
    if isinstance(shape, StructureShape):
        pairs = (part.split("=", 1) for part in text.split(","))
        return {name: _value(shape.members[name], value) for name, value in pairs}
    return {"true": True, "false": False}[text] if shape.type_name == "boolean" else text
