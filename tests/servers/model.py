"""A running server, and how tests get at it."""

import uuid
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import boto3
from botocore.config import Config

REGION = "us-east-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """An S3 server on loopback.

    ``conditional``: it keeps conditional writes, so it may be published to without
    ``single-writer``.
    """

    name: str
    endpoint: str
    conditional: bool
    access_key: str = "testkey"
    secret_key: str = "testsecret"

    @property
    def environ(self) -> dict[str, str]:
        """What tells the product (and every AWS tool) about this server, and only about it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """A plain boto3 client, for what the product has no method for."""
        return _client(self.endpoint, self.access_key, self.secret_key)

    def new_bucket(self) -> str:
        """The name of a new, empty bucket."""
        name = f"test-{uuid.uuid4().hex[:16]}"
        self.client().create_bucket(Bucket=name)
        return name

    def through(self, endpoint: str) -> "Server":
        """The same server behind another endpoint: a proxy."""
        return replace(self, endpoint=endpoint)


@cache
def _client(endpoint: str, access_key: str, secret_key: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=REGION,
        config=Config(
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
        ),
    )
