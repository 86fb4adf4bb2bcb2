"""Just as much of IAM as the printed policies use: what a request needs, and whether a policy allows it."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.faulty_proxy import Answer, Forward, Request, refuse


def allows(document: dict[str, Any], action: str, resource: str, **context: str) -> bool:
    """Whether some statement allows it. context: condition keys, with underscores."""
    return any(_matches(statement, action, resource, context) for statement in document["Statement"])


def _matches(statement: dict[str, Any], action: str, resource: str, context: dict[str, str]) -> bool:
    resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
    if statement["Action"] != action or not any(fnmatchcase(resource, each) for each in resources):
        return False
    for operator, wanted in statement.get("Condition", {}).items():
        for key, value in wanted.items():
            found = context.get(key.removeprefix("s3:").replace("-", "_"))
            match operator:
                case "Null":
                    holds = (found is None) == (value == "true")
                case "Bool":
                    holds = found == value
                case "NumericLessThanEquals":
                    holds = found is not None and int(found) <= int(value)
                case "StringLike":
                    holds = found is not None and fnmatchcase(found, value)
                case _:
                    raise AssertionError(operator)
            if not holds:
                return False
    return True


class Guard:
    """A fault for the proxy: what the policy does not allow is refused, as by a service that honours it.

    refused: what was, as "action resource".
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self.refused: list[str] = []

    def __call__(self, request: Request, forward: Forward) -> Answer | None:
        for action, resource, context in needs(request):
            if not allows(self._document, action, resource, **context):
                self.refused.append(f"{action} {resource}")
                return refuse(403, "AccessDenied", "Access Denied.")(request, forward)
        return forward(request)


def needs(request: Request) -> list[tuple[str, str, dict[str, str]]]:
    """(action, resource, condition keys) of all that a request needs to be allowed."""
    parts = urlsplit(request.path)
    query = parse_qs(parts.query, keep_blank_values=True)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    place = f"arn:aws:s3:::{bucket}"
    if not key:
        return [(_of_bucket(query), place, {"prefix": query.get("prefix", [""])[0]})]
    resource = f"{place}/{key}"
    if "retention" in query:
        return [(f"s3:{request.method.capitalize()}ObjectRetention", resource, {})]
    if request.method in ("GET", "HEAD"):
        return [("s3:GetObjectVersion" if "versionId" in query else "s3:GetObject", resource, {})]
    if request.method == "DELETE":
        if "uploadId" in query:
            return [("s3:AbortMultipartUpload", resource, {})]
        return [("s3:DeleteObjectVersion" if "versionId" in query else "s3:DeleteObject", resource, {})]
    makes = "partNumber" not in query if request.method == "PUT" else "uploadId" in query
    context = {"ObjectCreationOperation": "true" if makes else "false"}
    if "if-none-match" in request.headers:
        context["if_none_match"] = request.headers["if-none-match"]
    found = [("s3:PutObject", resource, context)]
    if "x-amz-object-lock-mode" in request.headers:
        found.append(("s3:PutObjectRetention", resource, {"object_lock_remaining_retention_days": "1"}))
    return found


def _of_bucket(query: dict[str, list[str]]) -> str:
    for name, action in (
        ("uploads", "s3:ListBucketMultipartUploads"),
        ("versions", "s3:ListBucketVersions"),
        ("versioning", "s3:GetBucketVersioning"),
    ):
        if name in query:
            return action
    return "s3:ListBucket"
