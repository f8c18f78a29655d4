"""Open a bucket with the standard AWS settings, and send requests to it, with retries."""

from collections import ChainMap, Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cache
from itertools import chain, combinations
from threading import Lock
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import EnvProvider
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError
from botocore.loaders import Loader, create_loader
from botocore.utils import parse_timestamp

from lago_images.errors import StorageError, UsageError
from lago_images.host.retry import RetryPolicy
from lago_images.storage.base import check_key
from lago_images.storage.s3.etags import Abilities
from lago_images.storage.s3.failures import (
    Failure,
    asked_pause_of,
    code_of,
    request,
    status_of,
    transient,
    translate,
)

if TYPE_CHECKING:
    from botocore.config import _S3Dict
    from mypy_boto3_s3.client import S3Client

CONNECTIONS = 16
# Seconds. A store that takes longer to accept a connection or to send the next bytes is retried.
CONNECT_TIMEOUT = 10
READ_TIMEOUT = 60
# Seconds. Some stores answer a copy of several GiB only when all of it is written.
COPY_TIMEOUT = 900
# Where nothing says otherwise: S3-compatible stores mostly ignore it, but a signature has one.
DEFAULT_REGION = "us-east-1"
_VARIABLES = {
    "profile": ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "config_file": ("AWS_CONFIG_FILE",),
    "credentials_file": ("AWS_SHARED_CREDENTIALS_FILE",),
    "ca_bundle": ("AWS_CA_BUNDLE",),
}


# Answers of stores that do not know a header; 400 is Backblaze's ("Unsupported header").
_REFUSING = frozenset({400, 405, 501})
# Answers to bytes that did not arrive as they were sent.
_DAMAGED = frozenset({"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch"})


class Feature(StrEnum):
    """Feature names what some stores refuse to hear of: then it is left out.

    ``CHECKSUMS`` other than Content-MD5; ``CREATION`` is If-None-Match on writes.
    """

    CHECKSUMS = "checksums"
    CREATION = "conditional creation"


@dataclass(slots=True, kw_only=True)
class Bucket:
    """Bucket is a bucket, or a prefix in one.

    Attributes:
        name: The bucket's.
        prefix: Empty, or ends in ``/``.
        small: For small objects: signs what it sends.
        bulk: For large ones: signs a checksum of what it sends instead, which costs half.
        patient: For copies inside the store: waits ``COPY_TIMEOUT`` for an answer.
        retry: For failing requests.
        anonymous: There are no credentials; requests are not signed.
        lacking: Features that the store was found to refuse.
        abilities: What the store is known to do, from the probe on.
        requests: How many requests were sent, retries included, by S3's name of the operation.
    """

    name: str
    prefix: str
    small: "S3Client"
    bulk: "S3Client"
    patient: "S3Client"
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    anonymous: bool = False
    abilities: Abilities = field(default_factory=Abilities)
    lacking: set[Feature] = field(default_factory=set)
    requests: Counter[str] = field(default_factory=Counter)
    _reached: bool = False
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        for client in (self.small, self.bulk, self.patient):
            # Not before-call: the SDK may send a call twice, to follow a redirect.
            client.meta.events.register("before-send.s3", self._count)
            client.meta.events.register_first("needs-retry.s3.HeadBucket", _ask_once)

    @property
    def url(self) -> str:
        return f"s3://{self.name}/{self.prefix}".rstrip("/")

    @property
    def endpoint(self) -> str:
        return str(self.small.meta.endpoint_url)

    @property
    def where(self) -> str:
        """Return the store's name for messages."""
        return f"{self.url} at {self.endpoint}"

    def key(self, key: str) -> str:
        """Return the full key of a store's key.

        Raises:
            StorageError: A server or a proxy could take it for another object's.
        """
        check_key(key)
        return self.prefix + key

    def call(
        self,
        doing: str,
        function: Callable[..., Any],
        retry: RetryPolicy | None = None,
        /,
        **arguments: object,
    ) -> Any:  # noqa: ANN401 -- boto3's answers
        """Make one request, tried again while that can help, by the bucket's policy or another.

        Raises:
            StorageError: With boto3's error as its cause. ``NotFoundError`` if the store says
                ``NoSuchKey`` with a 404.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = request(function, Bucket=self.name, **arguments)
            except Failure as error:
                failure = self.failure(error, doing)
                if not transient(error) or attempt >= self.most_attempts(error, retry):
                    raise failure from error
                asked = asked_pause_of(error)
                (retry or self.retry).wait(attempt, failure.message, asked=asked)
            else:
                self._reached = True
                return answer

    def call_with(
        self,
        doing: str,
        function: Callable[..., Any],
        retry: RetryPolicy | None,
        features: Mapping[Feature, Mapping[str, object]],
        /,
        **arguments: object,
    ) -> Any:  # noqa: ANN401 -- boto3's answers
        """Make one request with the arguments of optional features, and without what is refused.

        Raises as ``call``, for the request with all of them.
        """
        wanted = [feature for feature in features if feature not in self.lacking]
        refusals: list[StorageError] = []
        # An answer does not say which header it refuses: try without as few as possible.
        counts = range(len(wanted) + 1)
        for dropped in chain.from_iterable(combinations(wanted, count) for count in counts):
            kept = [features[feature] for feature in wanted if feature not in dropped]
            more = dict(ChainMap(*map(dict, kept)))
            try:
                answer = self.call(doing, function, retry, **arguments, **more)
            except StorageError as error:
                refusals.append(error)
                if status_of(error) not in _REFUSING or code_of(error) in _DAMAGED:
                    raise
            else:
                self.lacking.update(dropped)
                return answer
        raise refusals[0]

    def most_attempts(self, error: Exception, retry: RetryPolicy | None = None) -> int:
        """Return how often to try a request that fails like this."""
        retry = retry or self.retry
        # No connection was made at all, and never before: the address may be wrong.
        is_unreachable = isinstance(error, EndpointConnectionError | ConnectTimeoutError)
        return retry.first if is_unreachable and not self._reached else retry.attempts

    def failure(self, error: Exception, doing: str) -> StorageError:
        """Return the error to raise for one of boto3's."""
        return translate(
            error, doing=doing, where=self.where, bucket=self.name, anonymous=self.anonymous
        )

    def _count(self, event_name: str, **_: object) -> None:
        # The SDK calls this in whatever thread sends, and += of a counter is not one step.
        with self._lock:
            self.requests[event_name.rpartition(".")[2]] += 1


def _ask_once(request_dict: dict[str, Any], **_: object) -> None:
    """Keep the SDK from following redirects of its own question where a redirect leads.

    It asks HEAD of the bucket for the region to go to, and for every redirect of that again, until
    Python's stack is full.
    """
    request_dict.setdefault("context", {}).setdefault("s3_redirect", {})["redirected"] = True


def open_bucket(
    name: str, prefix: str, environ: Mapping[str, str], *, retry: RetryPolicy | None = None
) -> Bucket:
    """Open a bucket, with the settings of the standard AWS variables and profiles.

    ``environ`` decides over the keys, profile, region, configuration files, certificate bundle
    and endpoint. Rarer variables (containers, web identity, instance metadata, EC2 proxies) are
    read from the process's environment by the SDK itself. An endpoint that wants virtual-hosted
    addressing is set up as for every AWS tool: ``s3 = addressing_style = virtual`` in the profile.

    Raises:
        StorageError: The settings cannot work.
    """
    try:
        session = _session(environ)
        small = _client(session, environ, {})
        bulk = _client(session, environ, {"payload_signing_enabled": False})
        patient = _client(session, environ, {}, read_timeout=COPY_TIMEOUT)
    except (*Failure, ValueError) as error:
        where = f"s3://{name}/{prefix}".rstrip("/")
        raise translate(error, doing="setting up", where=where, bucket=name) from error
    return Bucket(
        name=name,
        prefix=prefix,
        small=small,
        bulk=bulk,
        patient=patient,
        retry=retry or RetryPolicy(),
        anonymous=session.get_credentials() is None,
    )


@cache
def _loader() -> Loader:
    """Return the SDK's model of S3: a megabyte of JSON that is read once, not once a store."""
    return create_loader()


def _session(environ: Mapping[str, str]) -> boto3.Session:
    core = botocore.session.Session()
    core.register_component("data_loader", _loader())
    for variable, names in _VARIABLES.items():
        value = next((environ[name] for name in names if environ.get(name)), None)
        if value is not None:
            core.set_config_variable(variable, value)
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
    resolver = core.get_component("credential_provider")
    # The SDK leaves the variables out where a profile was named in code; AWS tools let them win.
    resolver.remove("env")
    resolver.providers.insert(0, EnvProvider(environ))
    return boto3.Session(botocore_session=core)


def _moment(text: str) -> datetime:
    """Parse a moment in a store's answer.

    A listing has one for each object, and botocore's own reading of it takes 0.1 ms, four times
    as long as all the rest.
    """
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return parse_timestamp(text)


def _client(
    session: boto3.Session,
    environ: Mapping[str, str],
    s3: "_S3Dict",
    *,
    read_timeout: int = READ_TIMEOUT,
) -> "S3Client":
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or None
    if endpoint and "://" not in endpoint:
        raise UsageError(
            f"the S3 endpoint {endpoint} is no URL", hint=f"AWS_ENDPOINT_URL_S3=https://{endpoint}"
        )
    config = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=read_timeout,
        max_pool_connections=CONNECTIONS,
        # Retries are ours: a retried conditional write can meet itself (see conditional.py).
        retries={"total_max_attempts": 1},
        # Third-party stores fail on the checksums that newer SDKs add:
        # https://github.com/boto/boto3/issues/4392
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3=s3,
        # A public repository is read by whoever has no credentials: a fork's pull request.
        signature_version=UNSIGNED if session.get_credentials() is None else None,
    )
    return session.client(
        "s3",
        region_name=session.region_name or DEFAULT_REGION,
        endpoint_url=endpoint,
        config=config,
    )
