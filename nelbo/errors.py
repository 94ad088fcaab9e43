"""Every error that Nelbo raises on purpose: one class each, with its HTTP status, its exit code,
its problem type and an example of its messages.

    NelboError                    500  a fault of Nelbo itself
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
    └── MissingExtra              on the command line alone

A message says what is there, what was expected and the next step. `code` is the last part of the
problem type's URI (RFC 9457) and stays the same over HTTP, in the client and on the command line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class FieldError:
    """One field of a request that is wrong: where it stands (a JSON pointer), a stable code, and
    words."""

    pointer: str
    code: str
    detail: str


class NelboError(Exception):
    """A fault of Nelbo itself, and the base of all errors below.

    `retry_after` is in seconds, where waiting helps.
    """

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Nelbo failed"
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
    """A table, a request or an option that Nelbo cannot work with, whoever sends it again."""

    code = "invalid-input"
    title = "The input cannot be used"
    status = 422
    example = (
        "the table lacks the column 'age'; it has 'sex'; add what is missing, with empty cells"
        " where a value is not known"
    )


class InvalidRequest(InvalidInput):
    """A request whose fields are not what the service takes; `fields` names each one."""

    code = "invalid-request"
    title = "The request is not valid"
    example = "the request is not valid: /query/limit: Input should be less than or equal to 1000"

    def __init__(self, message: str, fields: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.fields = tuple(fields)


class InvalidArtifact(NelboError):
    """An artifact whose files are missing, changed, of a newer format or not what its manifest
    says."""

    code = "invalid-artifact"
    title = "The artifact cannot be used"
    status = 422
    example = "the artifact lacks score.onnx; copy the whole folder or train again"


class IdempotencyMismatch(NelboError):
    """An idempotency key that was used before with another request."""

    code = "idempotency-mismatch"
    title = "The idempotency key belongs to another request"
    status = 422
    example = "idempotency key 'nightly' was used for another request; take a new one for this one"


class NotAuthenticated(NelboError):
    """No key, or a key that nobody holds."""

    code = "not-authenticated"
    title = "A valid API key is needed"
    status = 401
    exit_code = 3
    example = "this service wants an API key: send the header Authorization: Bearer nb_…"


class Forbidden(NelboError):
    """A key whose scope does not allow the request."""

    code = "forbidden"
    title = "The API key does not allow this"
    status = 403
    exit_code = 3
    example = (
        "this needs a key of the scope 'train' and yours has 'read'; ask whoever runs the service"
        " for another key"
    )


class ForeignRequest(NelboError):
    """A request for a host name that is not the service's, or a change that the page of another
    site asks for."""

    code = "foreign-request"
    title = "The request is for another host or from another site"
    status = 403
    exit_code = 3
    example = (
        "the request names the host 'evil.example'; without keys this service answers to"
        " 127.0.0.1:8765, localhost:8765, [::1]:8765 alone: use one of these, or add the name to"
        " the setting hosts"
    )


class NotFound(NelboError):
    """A file, model, version, alias or job that does not exist or belongs to someone else."""

    code = "not-found"
    title = "Not found"
    status = 404
    exit_code = 3
    example = "no model 'adlut'; did you mean adult?"


class MethodNotAllowed(NelboError):
    """An address that exists, asked with a method that it does not have."""

    code = "method-not-allowed"
    title = "This address does not take that method"
    status = 405
    exit_code = 2
    example = "PATCH is not a method of /v1/jobs, which has GET, POST; see /docs"


class NotAcceptable(NelboError):
    """A format that results do not come in."""

    code = "not-acceptable"
    title = "Not available in that format"
    status = 406
    exit_code = 2
    example = (
        "results are not available as image/png; accept one of text/csv, application/x-ndjson,"
        " or use ?format="
    )


class TooSlow(NelboError):
    """A body that arrives too slowly, or not at all."""

    code = "too-slow"
    title = "The body arrives too slowly"
    status = 408
    example = "no byte of the body arrived for 30 s; send it faster"


class Conflict(NelboError):
    """A request that the present state does not allow."""

    code = "conflict"
    title = "The present state does not allow this"
    status = 409
    example = (
        "adult@2 is in use by score job 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11; cancel it or wait for"
        " it"
    )


class NotReady(NelboError):
    """A file or version that is still being read or verified."""

    code = "not-ready"
    title = "Not ready yet"
    status = 409
    example = "file 0198c6d0-1f0e-7b6e-8d0c-2f6f3f1f7a90 is still reading; ask again in a moment"


class Gone(NelboError):
    """Something that existed and was deleted."""

    code = "gone"
    title = "Deleted"
    status = 410
    example = "job 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11 was deleted"


class TooLarge(NelboError):
    """A body, a table or a number of rows above a limit; the message names the setting."""

    code = "too-large"
    title = "Too large"
    status = 413
    example = "the body is larger than 65,536 bytes; no request of this kind needs more"


class UnsupportedMediaType(NelboError):
    """A body whose Content-Type is not one that the address takes."""

    code = "unsupported-media-type"
    title = "The address does not take bodies of that type"
    status = 415
    exit_code = 2
    example = "the body is sent as text/plain; send the header Content-Type: application/json"


class OverQuota(NelboError):
    """More of one owner's work waits than may; the message says which setting, and when to come
    back."""

    code = "over-quota"
    title = "Too much of yours waits already"
    status = 429
    example = (
        "150,000,000 rows of yours wait already; with these 60,000,000 there would be more than"
        " 200,000,000 (the setting max_queued_rows): try again when one of your jobs has ended"
    )


class TooManyTries(NelboError):
    """Too many requests with a wrong API key from one address; the message says when to come
    back."""

    code = "too-many-tries"
    title = "Too many wrong API keys"
    status = 429
    example = "20 requests with a wrong API key came from your address within a minute; wait 40 s"


class Unavailable(NelboError):
    """A part that Nelbo needs (database, service, disk) does not answer."""

    code = "unavailable"
    title = "Not available right now"
    status = 503
    example = "the database does not answer: connection refused"


class Overloaded(Unavailable):
    """The service as a whole has too much to do or too little disk to take more; the message says
    which setting."""

    code = "overloaded"
    title = "The service takes no more right now"
    example = (
        "a job has waited 4,000 s for a worker, longer than 3,600 s (the setting max_queue_s):"
        " try again later, or start more workers"
    )


class JobFailed(NelboError):
    """A job that ended as failed or cancelled while someone waited for its result."""

    code = "job-failed"
    title = "The job did not succeed"
    status = 409
    example = "job 0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11 was cancelled; it has no results"


class MissingExtra(NelboError):
    """A command whose optional packages are not installed."""

    code = "missing-extra"
    title = "A part of Nelbo is not installed"
    example = "nelbo train needs packages that are not installed: pip install 'nelbo[training]'"

    def __init__(self, command: str, extra: str) -> None:
        super().__init__(
            f"{command} needs packages that are not installed: pip install 'nelbo[{extra}]'"
        )


def problem_types() -> dict[str, type[NelboError]]:
    """All errors by their code: what the API documents and what the client turns answers back
    into."""
    types: dict[str, type[NelboError]] = {NelboError.code: NelboError}
    todo = list(NelboError.__subclasses__())
    while todo:
        error = todo.pop()
        types[error.code] = error
        todo += error.__subclasses__()
    return types
