"""The policies of docs/policies: on a bucket of a real server, and as AWS would judge requests.

Ceph knows neither ``s3:if-none-match`` nor ``s3:ObjectCreationOperation``, so AWS's own rules are
held to by a stand-in: it judges each request of the SDK by the policies before it is sent.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders

from tests.servers.model import Server

POLICIES = Path(__file__).parents[2] / "docs" / "policies"


def text_of(name: str, bucket: str, prefix: str = "") -> str:
    """Fill a policy in as the documents say."""
    text = (POLICIES / name).read_text()
    for word, value in (
        ("BUCKET", bucket),
        ("PREFIX", prefix),
        ("BUILDER", "builder"),
        ("PUBLISHER", "publisher"),
    ):
        text = re.sub(rf"(?<![A-Za-z]){word}", value, text)
    return text


def guarded_bucket(server: Server, prefix: str) -> str:
    """A new bucket with the policy of docs/policies in force."""
    bucket = server.new_bucket()
    text = text_of("bucket-ceph.json", bucket, prefix)
    server.client().put_bucket_policy(Bucket=bucket, Policy=text)
    return bucket


def published_bucket(server: Server) -> str:
    """The same, for a whole repository without a prefix."""
    return guarded_bucket(server, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request asks for, as AWS calls it. https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html"""

    action: str
    resource: str
    keys: Mapping[str, str]


def asked(method: str, url: str, headers: Mapping[str, str]) -> Asked:
    """Read a path-style request."""
    parts = urlsplit(url)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    query = parse_qs(parts.query, keep_blank_values=True)
    keys: dict[str, str] = {}
    if not key:
        actions = {
            "uploads": "ListBucketMultipartUploads",
            "versioning": "GetBucketVersioning",
            "object-lock": "GetBucketObjectLockConfiguration",
        }
        known = [action for name, action in actions.items() if name in query]
        if "prefix" in query:
            keys["s3:prefix"] = query["prefix"][0]
        action = known[0] if known else "ListBucket"
        return Asked(action=f"s3:{action}", resource=f"arn:aws:s3:::{bucket}", keys=keys)
    if method == "DELETE":
        action = "AbortMultipartUpload" if "uploadId" in query else "DeleteObject"
    elif method in {"GET", "HEAD"}:
        action = "ListMultipartUploadParts" if "uploadId" in query else "GetObject"
    else:
        action = "PutObject"
        # Parts and beginnings create no object: only what does can be conditional.
        creates = "uploads" not in query and "partNumber" not in query
        keys["s3:ObjectCreationOperation"] = str(creates).lower()
        condition = {name.lower(): value for name, value in headers.items()}.get("if-none-match")
        # CopyObject knows no If-None-Match.
        if creates and condition is not None and "x-amz-copy-source" not in headers:
            keys["s3:if-none-match"] = condition
    return Asked(action=f"s3:{action}", resource=f"arn:aws:s3:::{bucket}/{key}", keys=keys)


def allows(policies: Sequence[Mapping[str, Any]], request: Asked) -> bool:
    """Whether one statement allows the request, and none denies it."""
    effects = {
        statement["Effect"]
        for policy in policies
        for statement in policy["Statement"]
        if _applies(statement, request)
    }
    return effects == {"Allow"}


def _applies(statement: Mapping[str, Any], request: Asked) -> bool:
    named = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
    assert statement.keys() <= named, statement
    return (
        any(fnmatchcase(request.action, each) for each in _all(statement["Action"]))
        and any(fnmatchcase(request.resource, each) for each in _all(statement["Resource"]))
        and all(
            _OPERATORS[operator](request.keys.get(key), _all(values))
            for operator, wanted in statement.get("Condition", {}).items()
            for key, values in wanted.items()
        )
    )


def _all(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _is_like(value: str | None, wanted: list[str]) -> bool:
    return value is not None and any(fnmatchcase(value, each) for each in wanted)


_OPERATORS: Mapping[str, Callable[[str | None, list[str]], bool]] = {
    "StringLike": _is_like,
    "StringLikeIfExists": lambda value, wanted: value is None or _is_like(value, wanted),
    "Bool": lambda value, wanted: value == wanted[0],
    "Null": lambda value, wanted: (value is None) == (wanted[0] == "true"),
}


def held_to(client: Any, *texts: str) -> Any:
    """Refuse what the policies do not allow, before the client sends it."""
    policies = [json.loads(text) for text in texts]

    def judge(request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        headers = {
            name: value.decode() if isinstance(value, bytes) else value
            for name, value in request.headers.items()
        }
        if allows(policies, asked(request.method, request.url, headers)):
            return None
        return AWSResponse(request.url, 403, HTTPHeaders(), _Refusal())

    client.meta.events.register("before-send.s3", judge)
    return client


class _Refusal:
    def stream(self, **_: object) -> Any:
        yield b"<Error><Code>AccessDenied</Code><Message>by the policies</Message></Error>"
