"""What the server refuses, in the three shapes that Google Cloud Storage answers in."""

from __future__ import annotations

import json
from xml.sax.saxutils import escape

REASONS = {
    400: "invalid",
    403: "forbidden",
    404: "notFound",
    409: "conflict",
    410: "gone",
    412: "conditionNotMet",
    416: "requestedRangeNotSatisfiable",
    429: "rateLimitExceeded",
    499: "clientClosedRequest",
    500: "backendError",
    501: "notImplemented",
    502: "backendError",
    503: "backendError",
    504: "gatewayTimeout",
}

_XML_CODES = {
    400: "InvalidArgument",
    403: "AccessDenied",
    404: "NoSuchKey",
    409: "BucketNotEmpty",
    412: "PreconditionFailed",
    416: "InvalidRange",
    429: "SlowDown",
    501: "NotImplemented",
    503: "ServiceUnavailable",
}

NOT_MODIFIED = 304
"""The one refusal without a body (RFC 9110, 15.4.5)."""


class ServiceError(Exception):
    """A request that the service refuses, with an HTTP status.

    Parameters
    ----------
    status
        As sent.
    message
        For people.
    location_type, location
        Where the JSON API says the fault lies, e.g. ``"header"`` and ``"If-Match"``.
    """

    def __init__(self, status: int, message: str, *, location_type: str = "", location: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.location_type = location_type
        self.location = location

    def as_json(self) -> bytes:
        """Return the body that the JSON API sends."""
        detail = {"message": self.message, "domain": "global", "reason": REASONS.get(self.status, "invalid")}
        if self.location:
            detail |= {"locationType": self.location_type, "location": self.location}
        error = {"code": self.status, "message": self.message, "errors": [detail]}
        return json.dumps({"error": error}).encode()

    def as_text(self) -> bytes:
        """Return the body that media downloads send."""
        return self.message.encode()

    def as_xml(self) -> bytes:
        """Return the body that the XML API sends."""
        code = _XML_CODES.get(self.status, "InternalError")
        message = escape(self.message)
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        return f"<?xml version='1.0' encoding='UTF-8'?>{body}".encode()


def precondition_failed(location: str) -> ServiceError:
    """Return the refusal of a condition named `location` that does not hold."""
    message = "At least one of the pre-conditions you specified did not hold."
    return ServiceError(412, message, location_type="header", location=location)


def no_such_object(bucket: str, name: str) -> ServiceError:
    """Return the refusal of an object that is not there."""
    return ServiceError(404, f"No such object: {bucket}/{name}")
