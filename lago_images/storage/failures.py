"""What a failed S3 request means: whether to try again, and how to tell the user."""

from http import HTTPStatus

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
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

from lago_images.errors import NotFoundError, StorageError

# What boto3 raises; urllib3's own errors do not get past botocore.
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
_REFUSED = frozenset({401, 403})
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
    "InvalidToken": "check AWS_SESSION_TOKEN: it must belong to the access key",
    "NoSuchBucket": "create the bucket, or correct the repository's URL or AWS_ENDPOINT_URL_S3",
    "PermanentRedirect": _REGION_HINT,
    "QuotaExceeded": "the bucket or its owner is over quota: free space or raise it",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it (timedatectl set-ntp true)",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY; a proxy that changes requests does "
    "this too",
}


def code_of(error: BaseException | None) -> str:
    """S3's name of the error, such as ``NoSuchKey``; empty for what is no answer of a store.

    Takes an error of boto3's, or the ``StorageError`` made of it.
    """
    if isinstance(error, StorageError):
        error = error.__cause__
    return str(error.response["Error"].get("Code", "")) if isinstance(error, ClientError) else ""


def status_of(error: BaseException | None) -> int:
    """The HTTP status of the answer; 0 for what is no answer of a store."""
    if isinstance(error, StorageError):
        error = error.__cause__
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def transient(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, ClientError):
        return status_of(error) in _AGAIN_STATUS or code_of(error) in _AGAIN_CODE
    if isinstance(error, SSLError):
        return False
    return isinstance(error, _AGAIN)


def unreachable(error: Exception) -> bool:
    """Whether no connection was made at all."""
    return isinstance(error, EndpointConnectionError | ConnectTimeoutError)


def translate(error: Exception, *, doing: str, where: str, anonymous: bool = False) -> StorageError:
    """The error to raise for a failed request.

    Args:
        error: What boto3 raised.
        doing: What was being done, such as ``reading index``.
        where: The store, as its user knows it.
        anonymous: No credentials were found, so the request was not signed.
    """
    if anonymous and status_of(error) in _REFUSED:
        text = f"{doing} in {where}: the store refuses this without credentials"
        return StorageError(text, hint=_NO_KEYS_HINT)
    if isinstance(error, ClientError):
        return _refusal(error, doing, where)
    what = " ".join(str(error).split())
    return StorageError(f"{doing} in {where}: {what}", hint=_hint_for(error))


def _refusal(error: ClientError, doing: str, where: str) -> StorageError:
    code, status = code_of(error), status_of(error)
    said = " ".join(str(error.response["Error"].get("Message") or "").split())
    kind = NotFoundError if status == HTTPStatus.NOT_FOUND and code == "NoSuchKey" else StorageError
    text = f"{doing} in {where}: the store answered {status}"
    if code and code != str(status):
        text += f" {code}"
    if said and said != "None":
        text += f": {said}"
    return kind(text, hint=_HINTS.get(code) or _hint_for_status(status))


def _hint_for_status(status: int) -> str | None:
    if status in _REFUSED:
        return _HINTS["AccessDenied"]
    if status in {301, 307}:
        return _REGION_HINT
    if status == HTTPStatus.NOT_FOUND:
        return "this may be no S3 endpoint: check AWS_ENDPOINT_URL_S3"
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
    return None
