"""The scope of a key that each operation needs: one table, for the checks and for OpenAPI."""

from typing import Any

from api.errors import add_answers
from nelbo.errors import Forbidden, NotAuthenticated, TooManyTries
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
        raise _refusal(scope, needed)


def _refusal(scope: Scope, needed: Scope) -> Forbidden:
    return Forbidden(
        f"this needs a key of the scope {needed!r} and yours has {scope!r}; ask whoever runs the"
        " service for another key"
    )


def describe(openapi: dict[str, Any]) -> None:
    """Add the errors about keys to each operation that needs a key."""
    for operations in openapi["paths"].values():
        for operation in operations.values():
            needed = NEEDS.get(operation["operationId"])
            if needed is not None:
                add_answers(operation, NotAuthenticated, TooManyTries)
            if needed not in (None, SCOPES[0]):
                # The message names the scope that this operation needs.
                add_answers(operation, _refusal(SCOPES[0], needed))
