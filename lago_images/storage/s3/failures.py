"""Judge failed S3 requests: which to try again, and the error for the user."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    InvalidConfigError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ResponseStreamingError,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import (
    ConnectionError as NoConnectionError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from lago_images.addresses import unusual_bucket
from lago_images.console import clean
from lago_images.errors import Error, KeylessError, NotFoundError, StorageError
from lago_images.host.retry import asked_pause

# What boto3 raises of its own; ``request`` makes one of these of all else.
Failure = (BotoCoreError, ClientError)
_AGAIN_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_AGAIN_CODE = frozenset(
    {"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling"}
)
_AGAIN = (NoConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError)
_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    SSOError,
)
_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_NO_KEYS_HINT = f"set {_KEYS}, or AWS_PROFILE to a profile that has them"
_NO_S3_HINT = "this may be no S3 endpoint: check AWS_ENDPOINT_URL_S3"
_OF_ITS_NAME = frozenset({"InvalidBucketName", "NoSuchBucket"})
_REFUSED = frozenset({401, 403})
_REDIRECTED = 3
_LONGEST_LOCATION = 200
_REGION_HINT = "set AWS_REGION to the bucket's region, and AWS_ENDPOINT_URL_S3 to its endpoint"
_HINTS = {
    "AccessDenied": "the credentials need s3:GetObject, s3:PutObject, s3:DeleteObject and "
    "s3:AbortMultipartUpload on the objects and s3:ListBucket and "
    "s3:ListBucketMultipartUploads on the bucket",
    "AuthorizationHeaderMalformed": _REGION_HINT,
    "EntityTooLarge": "this store takes no object this large",
    "ExpiredToken": "the session's credentials have expired: get new ones",
    "IllegalLocationConstraintException": _REGION_HINT,
    "InvalidAccessKeyId": f"the store does not know this key: check {_KEYS}",
    "InvalidBucketName": "correct the bucket's name in the repository's URL",
    "InvalidToken": "check AWS_SESSION_TOKEN: it must belong to the access key",
    "NoSuchBucket": "create the bucket, or correct the repository's URL or AWS_ENDPOINT_URL_S3",
    "PermanentRedirect": _REGION_HINT,
    "QuotaExceeded": "the bucket or its owner is over quota: free space or raise it",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it (timedatectl set-ntp true)",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY; a proxy that changes requests does "
    "this too",
}


class UnreadableAnswerError(BotoCoreError):
    """Raised where the SDK stumbled over an answer; its cause is what the SDK raised."""

    fmt = "the answer cannot be understood ({kind})"


def request(function: Callable[..., Any], **arguments: object) -> Any:  # noqa: ANN401 -- boto3's answers
    """Make one request; whatever the SDK raises over an answer is one of ``Failure``."""
    try:
        return function(**arguments)
    except HTTPClientError as error:
        # Of this very class: "an unhandled exception", of the network or a slip over an answer.
        slip = error.kwargs.get("error")
        if type(error) is not HTTPClientError or isinstance(slip, OSError | HTTPError):
            raise
        raise UnreadableAnswerError(kind=type(slip).__name__) from error
    except (*Failure, Error, OSError, MemoryError):
        raise
    except Exception as error:
        raise UnreadableAnswerError(kind=type(error).__name__) from error


@contextmanager
def understood(doing: str, where: str) -> Iterator[None]:
    """Take an answer apart; raises ``StorageError`` where it lacks what every answer has."""
    try:
        yield
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        message = f"the answer cannot be understood ({type(error).__name__})"
        raise StorageError(f"{doing} in {where}: {message}", hint=_NO_S3_HINT) from error


def code_of(error: BaseException | None) -> str:
    """Return S3's name of the error, such as ``NoSuchKey``; empty for what is no answer of a store.

    Takes an error of boto3's, or the ``StorageError`` made of it.
    """
    if isinstance(error, StorageError):
        error = error.__cause__
    return str(error.response["Error"].get("Code", "")) if isinstance(error, ClientError) else ""


def status_of(error: BaseException | None) -> int:
    """Return the HTTP status of the answer; 0 for what is no answer of a store."""
    if isinstance(error, StorageError):
        error = error.__cause__
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def transient(error: Exception) -> bool:
    """Decide whether the same request may succeed a little later."""
    # By code, too: AWS sends some of these with a 400, RequestTimeout for one.
    if isinstance(error, ClientError):
        return status_of(error) in _AGAIN_STATUS or code_of(error) in _AGAIN_CODE
    # A kind of connection error, but a certificate does not get better.
    if isinstance(error, SSLError):
        return False
    return isinstance(error, _AGAIN)


def asked_pause_of(error: Exception) -> float:
    """Return the seconds that the store asks to wait; 0 where it does not."""
    return asked_pause(_headers_of(error))


def _headers_of(error: Exception) -> dict[str, str]:
    """Return the headers of the answer, by their names in lower case."""
    if not isinstance(error, ClientError):
        return {}
    headers: dict[str, str] = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers


def translate(
    error: Exception, *, doing: str, where: str, bucket: str, anonymous: bool = False
) -> StorageError:
    """Return the error to raise for a failed request.

    Args:
        error: What boto3 raised.
        doing: What was being done, such as ``reading index``.
        where: The store, as its user knows it.
        bucket: The bucket's name.
        anonymous: No credentials were found, so the request was not signed.
    """
    if anonymous and status_of(error) in _REFUSED:
        text = f"{doing} in {where}: the store refuses this without credentials"
        return KeylessError(text, hint=_NO_KEYS_HINT)
    if isinstance(error, ClientError):
        return _refusal(error, doing, where, bucket)
    message = " ".join(str(error).split())
    hint = _hint_for(error)
    if isinstance(error, NoConnectionError):
        # Where an endpoint wants it so, the bucket's name is a part of the host's.
        hint = _also(hint, unusual_bucket(bucket))
    return StorageError(f"{doing} in {where}: {message}", hint=hint)


def _also(hint: str | None, more: str) -> str | None:
    return "; ".join(filter(None, (hint, more))) or None


def _refusal(error: ClientError, doing: str, where: str, bucket: str) -> StorageError:
    code, status = code_of(error), status_of(error)
    message = " ".join(str(error.response["Error"].get("Message") or "").split())
    kind = NotFoundError if status == HTTPStatus.NOT_FOUND and code == "NoSuchKey" else StorageError
    text = f"{doing} in {where}: the store answered {status}"
    # An answer without a body, to HEAD for one, leaves the SDK with the status as the code.
    if code and code != str(status):
        text += f" {code}"
    if message and message != "None":
        text += f": {message}"
    location = clean(_headers_of(error).get("location", ""))[:_LONGEST_LOCATION]
    redirect = None
    if status // 100 == _REDIRECTED and location:
        # Such as nginx to https.
        redirect = (
            f"it redirects to {location}: set AWS_ENDPOINT_URL_S3 to the endpoint's final URL"
        )
    hint = _HINTS.get(code) or redirect or _hint_for_status(status)
    if code in _OF_ITS_NAME:
        hint = _also(hint, unusual_bucket(bucket))
    return kind(text, hint=hint)


def _hint_for_status(status: int) -> str | None:
    if status in _REFUSED:
        return _HINTS["AccessDenied"]
    if status in {301, 307}:
        return _REGION_HINT
    if status == HTTPStatus.NOT_FOUND:
        return _NO_S3_HINT
    if status in _AGAIN_STATUS:
        return "the store is in trouble or overloaded: try again later"
    return None


def _hint_for(error: Exception) -> str | None:
    if isinstance(error, _NO_CREDENTIALS):
        return _NO_KEYS_HINT
    if isinstance(error, ProfileNotFound):
        return "correct AWS_PROFILE, or add the profile to the AWS configuration file"
    if isinstance(error, InvalidConfigError):
        return "correct the AWS configuration file"
    if isinstance(error, SSLError):
        return "set AWS_CA_BUNDLE to the file with the certificate authority of the endpoint"
    if isinstance(error, _AGAIN):
        return "check AWS_ENDPOINT_URL_S3, and that the store runs and can be reached from here"
    unreadable = isinstance(error, UnreadableAnswerError | ResponseParserError)
    return _NO_S3_HINT if unreadable else None
