"""The scope of a key that each operation needs: one table, for the checks and for OpenAPI."""

from collections.abc import Iterator
from typing import Any

from api.errors import add_answers
from nelbo.errors import Forbidden, NelboError, NotAuthenticated, TooManyTries
from nelbo.store.keys import SCOPES, Scope

NEEDS: dict[str, Scope | None] = {
    # Probes and descriptions: everyone.
    "get_health": None,
    "get_readiness": None,
    "get_problem_type": None,
    "list_files": "read",
    "get_file": "read",
    "list_models": "read",
    "get_model": "read",
    "list_versions": "read",
    "get_version": "read",
    "list_jobs": "read",
    "get_job": "read",
    "get_results": "read",
    "list_errors": "read",
    "list_anomalies": "read",
    "upload_file": "submit",
    "delete_file": "submit",
    "submit_job": "submit",
    "cancel_job": "submit",
    "retry_job": "submit",
    "delete_job": "submit",
    "push_version": "train",
    "set_alias": "train",
    "delete_alias": "train",
    "delete_version": "train",
    "delete_model": "train",
    "list_audit": "admin",
}
"""The lowest scope that each operation of OpenAPI needs; None: no key.

An operation that is missing here is refused to everyone.
"""


def check_scope(scope: Scope, operation: str) -> None:
    """Raise Forbidden if a key with this scope does not allow the operation."""
    needed = NEEDS.get(operation)
    if needed is None:
        raise Forbidden(
            f"no key allows {operation!r}: it is missing in the service's table of scopes"
        )
    if SCOPES.index(scope) < SCOPES.index(needed):
        raise Forbidden(
            f"this needs a key of the scope {needed!r} and yours has {scope!r}; ask whoever runs"
            " the service for another key"
        )


def describe(openapi: dict[str, Any]) -> None:
    """Add the errors about keys to each operation that needs a key."""
    for operations in openapi["paths"].values():
        for operation in operations.values():
            needed = NEEDS.get(operation["operationId"])
            if needed is not None:
                add_answers(operation, *_refusals(needed))


def _refusals(needed: Scope) -> Iterator[tuple[type[NelboError], str]]:
    yield (
        NotAuthenticated,
        "this service wants an API key: send the header Authorization: Bearer nb_…",
    )
    yield (
        TooManyTries,
        "20 requests with a wrong API key came from your address within a minute; wait 40 s",
    )
    if needed != SCOPES[0]:
        yield (
            Forbidden,
            f"this needs a key of the scope {needed!r} and yours has 'read'; ask whoever runs the"
            " service for another key",
        )
