"""What an S3 service or boto3 reports, as one of our errors: what happened, to what, and what to do about it.

Services differ in the codes they send, so a code counts first, and then the HTTP status.
"""

from __future__ import annotations

from typing import Any

from backupd.errors import (
    BackupdError,
    ConfigError,
    ObjectMissing,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)

EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_BAD_KEY = {"InvalidAccessKeyId", "InvalidToken", "InvalidSecurity", "NotSignedUp", "InvalidClientTokenId"}
_NO_OBJECT = {"NoSuchKey", "NoSuchVersion"}
_FULL = {
    "InsufficientStorage", "InsufficientCapacity", "NoSpaceLeft", "QuotaExceeded", "StorageFull", "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded", "ServiceQuotaExceeded",
}  # fmt: skip
_PASSING = {
    "SlowDown", "SlowDownRead", "SlowDownWrite", "InternalError", "ServiceUnavailable", "RequestTimeout",
    "RequestTimeoutException", "RequestThrottled", "Throttling", "ThrottlingException", "ThrottledException",
    "TooManyRequests", "OperationAborted", "ConditionalRequestConflict", "IncompleteBody", "BandwidthLimitExceeded",
    "PriorRequestNotComplete",
    # The bytes were changed on their way.
    "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidDigest", "ChecksumMismatch",
}  # fmt: skip
_ELSEWHERE = {
    "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException",
}  # fmt: skip
_NO_LOCKS = {"InvalidRequest", "InvalidBucketState", "ObjectLockConfigurationNotFoundError"}
_NOT_CONDITIONAL = {"NotImplemented", "UnsupportedHeader", "UnsupportedOperation"}
_LONGEST = 200


def code_of(error: Exception) -> str:
    """The service's code; empty if it is no answer of a service."""
    return str(_answer(error).get("Code", ""))


def status_of(error: Exception) -> int:
    """The HTTP status; 0 if it is no answer of a service."""
    response = getattr(error, "response", None)
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) if isinstance(response, dict) else 0


def is_taken(error: Exception) -> bool:
    """Whether `If-None-Match: *` was answered with: there is such an object."""
    return code_of(error) == "PreconditionFailed" or status_of(error) == 412


def knows_no_condition(error: Exception) -> bool:
    """Whether the service refuses `If-None-Match` because it does not know it."""
    return code_of(error) in _NOT_CONDITIONAL or status_of(error) == 501


def is_mismatch(error: Exception) -> bool:
    """Whether what arrived does not match the checksum that the service has of it."""
    from botocore.exceptions import FlexibleChecksumError

    return isinstance(error, FlexibleChecksumError)


def answered(answer: dict[str, Any], *needed: str) -> dict[str, Any]:
    """The answer, if it has what every S3 service says there.

    Raises StorageUnavailable: it comes from something in between, such as a captive portal, or was cut. boto3 takes
    a web page for a success that says nothing: an object stored, an empty listing.
    """
    if any(name not in answer for name in needed) or answer.get("ContentType", "").startswith("text/html"):
        raise StorageUnavailable(
            "what answers is no S3 service", remedy="check endpoint_url, and whether the network wants you to log in"
        )
    return answer


def explain(error: Exception, subject: str, endpoint: str) -> BackupdError:
    """Our error for what boto3 raised; StorageUnavailable for all that may pass by itself.

    Args:
        subject: the object or place.
        endpoint: the service, for errors of the connection.
    """
    from botocore import exceptions, parsers

    match error:
        case BackupdError():
            return error
        case exceptions.ClientError():
            return _of_answer(error, subject)
        case (
            exceptions.NoCredentialsError()
            | exceptions.PartialCredentialsError()
            | exceptions.CredentialRetrievalError()
            | exceptions.UnauthorizedSSOTokenError()
            | exceptions.TokenRetrievalError()
            | exceptions.NoAuthTokenError()
        ):
            return StorageDenied(
                "there are no usable credentials for the bucket",
                subject=subject,
                remedy="set access_key_id and secret_access_key in the s3: section, or AWS_PROFILE and the like",
            )
        case exceptions.ProfileNotFound():
            return ConfigError("boto3 knows no such profile", subject=subject, remedy="see ~/.aws/config")
        case exceptions.ParamValidationError() | exceptions.InvalidRegionError() | exceptions.NoRegionError():
            return ConfigError(_clean(str(error)), subject=subject, remedy="check the s3: section")
        case exceptions.SSLError() if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return StorageError(
                f"the certificate of {endpoint} is not to be trusted",
                subject=subject,
                remedy="check endpoint_url; ca_file names an authority of your own",
            )
        case exceptions.FlexibleChecksumError():
            return StorageUnavailable(
                "what arrives does not match its checksum", subject=subject, remedy="check the network, then the object"
            )
        case exceptions.ConnectTimeoutError() | exceptions.EndpointConnectionError():
            what = f"no connection to {endpoint}"
        case exceptions.ReadTimeoutError():
            what = f"{endpoint} does not answer"
        case parsers.ResponseParserError() | ValueError():
            what = f"{endpoint} answers what cannot be read"
        case _:
            what = f"the connection to {endpoint} broke"
    return StorageUnavailable(what, subject=subject, remedy="check that the service runs and can be reached from here")


def _of_answer(error: Exception, subject: str) -> StorageError:
    code, status = code_of(error), status_of(error)
    said = _said(error)
    if code == "NoSuchBucket":
        return StorageError("there is no such bucket", subject=subject, remedy="make it, or check the url")
    if code in _NO_OBJECT or (status == 404 and code in ("404", "NotFound", "")):
        return ObjectMissing("there is no such object", subject=subject)
    if code in _FULL or status == 507:
        return StorageFull(f"the bucket is full: {said}", subject=subject, remedy="free some space, or raise its quota")
    if code == "RequestTimeTooSkewed":
        return StorageDenied(
            "the service refuses this machine's clock", subject=subject, remedy="set the clock; NTP keeps it right"
        )
    if code in EXPIRED:
        return StorageDenied("the credentials have expired", subject=subject, remedy="get new ones")
    if code in _BAD_KEY:
        return StorageDenied(
            f"the service does not know this access key ({said})", subject=subject, remedy="check access_key_id"
        )
    if code == "SignatureDoesNotMatch":
        return StorageDenied(
            "the service refuses the signature",
            subject=subject,
            remedy="check secret_access_key, and region and endpoint_url, which are signed too",
        )
    if code in _ELSEWHERE or 300 <= status < 400:
        return StorageError(f"the bucket is elsewhere: {said}", subject=subject, remedy="check region and endpoint_url")
    if code == "InvalidObjectState":
        return StorageError(
            "the object is in an archive that must be thawed first",
            subject=subject,
            remedy="have the service restore it; use a storage class that can be read at once",
        )
    if code in _NO_LOCKS:
        return StorageError(
            f"the service refuses: {said}",
            subject=subject,
            remedy="object_lock needs a bucket that was made with Object Lock; if there is none, check the s3: section",
        )
    if code == "InvalidStorageClass":
        return StorageError("the service has no such storage class", subject=subject, remedy="check storage_class")
    if code in _PASSING or status in (408, 429) or (status >= 500 and status != 501):
        return StorageUnavailable(
            f"the service fails: {said}", subject=subject, remedy="it may pass; else see the service's own state"
        )
    if status in (401, 403):
        return StorageDenied(
            f"the service does not permit this: {said}", subject=subject, remedy="check what these credentials may do"
        )
    return StorageError(f"the service refuses: {said}", subject=subject, remedy="check the s3: section and the bucket")


def _said(error: Exception) -> str:
    answer = _answer(error)
    headers = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPHeaders", {})
    if headers.get("content-type", "").startswith("text/html"):
        return f"status {status_of(error)}, with a web page instead of an answer"
    place = answer.get("Endpoint") or answer.get("Region") or headers.get("x-amz-bucket-region", "")
    said = f"{answer.get('Code', '')}: {answer.get('Message', '')}"
    return _clean(f"{said} ({place})" if place and place not in said else said)


def _answer(error: Exception) -> dict[str, Any]:
    response = getattr(error, "response", None)
    found = response.get("Error", {}) if isinstance(response, dict) else {}
    return found if isinstance(found, dict) else {}


def _clean(text: str) -> str:
    """One short line of what a service said."""
    line = "".join(each if each.isprintable() else " " for each in text).strip(" :")
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
