"""The errors that Nelbo raises on purpose.

Each class has an HTTP status, an exit code, a problem type and an example of its message.

    NelboError                    500  Nelbo itself failed
    ├── NotAuthenticated          401
    ├── Forbidden                 403
    ├── ForeignRequest            403
    ├── NotFound                  404
    ├── MethodNotAllowed          405
    ├── NotAcceptable             406
    ├── TooSlow                   408
    ├── Conflict                  409
    ├── NotReady                  409
    ├── JobFailed                 409
    ├── Gone                      410
    ├── TooLarge                  413
    ├── UnsupportedMediaType      415
    ├── InvalidInput              422
    │   └── InvalidRequest        422
    ├── InvalidArtifact           422
    ├── IdempotencyMismatch       422
    ├── OverQuota                 429
    ├── TooManyTries              429
    ├── Unavailable               503
    │   └── Overloaded            503
    └── MissingExtra              on the command line and in Python only

A message says what Nelbo found, what it expected and what to do next. `code` is the last part of
the problem type's URI (RFC 9457); it is the same over HTTP, in the client and on the command line.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class FieldError:
    """One invalid field of a request: its JSON pointer, a stable code and an explanation."""

    pointer: str
    code: str
    detail: str


class NelboError(Exception):
    """Nelbo itself failed. This class is also the base of all other errors.

    `retry_after` is the number of seconds to wait before another try, where waiting helps.
    """

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    example: ClassVar[str] = (
        "internal error; quote the request id 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11 when you report"
        " it"
    )

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class InvalidInput(NelboError):
    """The table, request or option is invalid; sending it again does not help."""

    code = "invalid-input"
    title = "Invalid input"
    status = 422
    example = (
        "the table lacks the column 'age'; it has 'sex'; add the missing columns, with"
        " empty cells where a value is not known"
    )


class InvalidRequest(InvalidInput):
    """A field of the request is invalid; `fields` lists each invalid one."""

    code = "invalid-request"
    title = "Invalid request"
    example = "the request is not valid: /query/limit: Input should be less than or equal to 1000"

    def __init__(self, message: str, fields: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.fields = tuple(fields)


class InvalidArtifact(NelboError):
    """A file of the artifact is missing, changed, too new or at odds with the manifest."""

    code = "invalid-artifact"
    title = "Invalid artifact"
    status = 422
    example = "the artifact lacks score.onnx; copy the whole folder or train again"


class IdempotencyMismatch(NelboError):
    """The idempotency key was used before for a different request."""

    code = "idempotency-mismatch"
    title = "Idempotency key used for another request"
    status = 422
    example = "idempotency key 'nightly' was used for another request; take a new one for this one"


class NotAuthenticated(NelboError):
    """The request has no API key, or one that is not valid."""

    code = "not-authenticated"
    title = "Valid API key required"
    status = 401
    exit_code = 3
    example = "this service wants an API key: send the header Authorization: Bearer nb_…"


class Forbidden(NelboError):
    """The scope of the API key does not allow the request."""

    code = "forbidden"
    title = "API key does not allow the request"
    status = 403
    exit_code = 3
    example = (
        "this needs a key of the scope 'train' and yours has 'read'; ask whoever runs the service"
        " for another key"
    )


class ForeignRequest(NelboError):
    """The request names an unknown host, or a page of another site asks for a change."""

    code = "foreign-request"
    title = "Unknown host or foreign site"
    status = 403
    exit_code = 3
    example = (
        "the request names the host 'evil.example'; without keys this service answers to"
        " 127.0.0.1:8765, localhost:8765, [::1]:8765 alone: use one of these, or add the name to"
        " the setting hosts"
    )


class NotFound(NelboError):
    """The file, model, version, alias or job does not exist, or has another owner."""

    code = "not-found"
    title = "Not found"
    status = 404
    exit_code = 3
    example = "no model 'adlut'; did you mean adult?"


class MethodNotAllowed(NelboError):
    """The address exists but does not support the method."""

    code = "method-not-allowed"
    title = "Method not allowed"
    status = 405
    exit_code = 2
    example = "PATCH is not a method of /v1/jobs, which has GET, POST; see /docs"


class NotAcceptable(NelboError):
    """Results are not available in the requested format."""

    code = "not-acceptable"
    title = "Format not available"
    status = 406
    exit_code = 2
    example = (
        "results are not available as image/png; accept one of text/csv, application/x-ndjson,"
        " or use ?format="
    )


class TooSlow(NelboError):
    """The request body arrives too slowly, or not at all."""

    code = "too-slow"
    title = "Request body too slow"
    status = 408
    example = "no byte of the body arrived for 30 s; send it faster"


class Conflict(NelboError):
    """The current state does not allow the request."""

    code = "conflict"
    title = "Not possible in the current state"
    status = 409
    example = (
        "adult@2 is in use by score job 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11; cancel it or wait for"
        " it"
    )


class NotReady(NelboError):
    """The file is still being read, or the version is still being verified."""

    code = "not-ready"
    title = "Not ready yet"
    status = 409
    example = (
        "file 0198c6d0-1f0e-7b6e-8d0c-2f6f3f1f7a90 is not ready yet (state reading); ask again in a"
        " moment"
    )


class Gone(NelboError):
    """The resource existed and was deleted."""

    code = "gone"
    title = "Deleted"
    status = 410
    example = "job 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11 was deleted"


class TooLarge(NelboError):
    """A body, a table or a number of rows exceeds a limit; the message names the setting."""

    code = "too-large"
    title = "Too large"
    status = 413
    example = "the body is larger than 65,536 bytes; no request of this kind needs more"


class UnsupportedMediaType(NelboError):
    """The address does not accept the Content-Type of the body."""

    code = "unsupported-media-type"
    title = "Unsupported media type"
    status = 415
    exit_code = 2
    example = "the body is sent as text/plain; send the header Content-Type: application/json"


class OverQuota(NelboError):
    """The owner has reached a quota; the message names the setting and when to try again."""

    code = "over-quota"
    title = "Quota exceeded"
    status = 429
    example = (
        "150,000,000 of your rows are waiting already; 60,000,000 more would exceed 200,000,000"
        " (the setting max_queued_rows): try again when one of your jobs has ended"
    )


class TooManyTries(NelboError):
    """One address sent too many wrong API keys; the message says when to try again."""

    code = "too-many-tries"
    title = "Too many wrong API keys"
    status = 429
    example = "20 requests with a wrong API key came from your address within a minute; wait 40 s"


class Unavailable(NelboError):
    """A part that Nelbo needs (database, service, disk) does not answer."""

    code = "unavailable"
    title = "Temporarily unavailable"
    status = 503
    example = "the database does not answer: connection refused"


class Overloaded(Unavailable):
    """The service has too much work or too little disk space; the message names the setting."""

    code = "overloaded"
    title = "Service overloaded"
    example = (
        "a job has waited 4,000 s for a worker, longer than 3,600 s (the setting max_queue_s):"
        " try again later, or start more workers"
    )


class JobFailed(NelboError):
    """The job failed or was cancelled while the caller waited for its result."""

    code = "job-failed"
    title = "Job did not succeed"
    status = 409
    example = "job 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11 was cancelled; it has no results"


class MissingExtra(NelboError):
    """The command or function needs optional packages that are not installed."""

    code = "missing-extra"
    title = "Optional packages missing"
    example = "nelbo train needs packages that are not installed: pip install 'nelbo[training]'"

    def __init__(self, command: str, extra: str) -> None:
        super().__init__(
            f"{command} needs packages that are not installed: pip install 'nelbo[{extra}]'"
        )


@contextmanager
def needs_extra(command: str, extra: str, package: str) -> Iterator[None]:
    """Import modules that use a package of an extra. Raises MissingExtra if it is not installed."""
    try:
        yield
    except ModuleNotFoundError as problem:
        if problem.name != package:
            raise
        raise MissingExtra(command, extra) from None


def problem_types() -> dict[str, type[NelboError]]:
    """Every error class by its code.

    The API documents these classes, and the client turns a problem document back into one.
    """
    types: dict[str, type[NelboError]] = {NelboError.code: NelboError}
    classes = list(NelboError.__subclasses__())
    while classes:
        error = classes.pop()
        types[error.code] = error
        classes += error.__subclasses__()
    return types
