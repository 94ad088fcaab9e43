"""The links of OpenAPI: which operations may follow another one, and with which parameters."""

from collections.abc import Iterator
from typing import Any

Parameters = dict[str, str]
"""The parameters of the next operation, with runtime expressions of OpenAPI as values."""
Links = dict[tuple[str, ...], Parameters]
"""The next operations, and the parameters that they share."""

JOB = (
    "get_job",
    "cancel_job",
    "retry_job",
    "delete_job",
    "get_results",
    "list_errors",
    "list_anomalies",
)
VERSION = ("get_version", "delete_version")
MODEL = ("push_version", "get_model", "list_versions", "delete_model")
ALIAS = ("set_alias", "delete_alias")

FILE_ID = {"file_id": "$response.body#/id"}
JOB_ID = {"job_id": "$response.body#/id"}
NAME = {"name": "$response.body#/name"}
NAME_OF_VERSION = {"name": "$response.body#/model"}
NUMBER = NAME_OF_VERSION | {"version": "$response.body#/version"}
SAME_ALIAS = NAME | {"alias": "$request.path.alias"}
NEXT_PAGE = {"cursor": "$response.body#/next_cursor"}
ANSWERED_JOB: Links = {JOB: JOB_ID}

NEXT: dict[str, Links] = {
    "upload_file": {("get_file", "delete_file"): FILE_ID},
    "get_file": {("delete_file",): FILE_ID},
    "list_files": {("list_files",): NEXT_PAGE},
    "push_version": {VERSION: NUMBER, MODEL: NAME_OF_VERSION},
    "get_version": {("delete_version",): NUMBER, MODEL: NAME_OF_VERSION},
    "get_model": {MODEL: NAME},
    "list_models": {("list_models",): NEXT_PAGE},
    "set_alias": {
        MODEL: NAME,
        ALIAS: SAME_ALIAS,
        ("get_version",): NAME | {"version": "$request.path.alias"},
    },
    "submit_job": ANSWERED_JOB,
    "get_job": ANSWERED_JOB,
    "cancel_job": ANSWERED_JOB,
    "retry_job": ANSWERED_JOB,
    "list_jobs": {("list_jobs",): NEXT_PAGE},
    "list_errors": {("list_errors",): {"job_id": "$request.path.job_id"} | NEXT_PAGE},
    "list_audit": {("list_audit",): NEXT_PAGE},
}
"""For each operation, the operations that may follow its successful answer."""


def describe(openapi: dict[str, Any]) -> None:
    """Add the links to the successful answers of each operation."""
    for operations in openapi["paths"].values():
        for operation in operations.values():
            links = dict(_links(operation["operationId"]))
            for status, answer in operation["responses"].items():
                if links and status.startswith("2"):
                    answer["links"] = links


def _links(operation: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for following, parameters in NEXT.get(operation, {}).items():
        for name in following:
            yield name, {"operationId": name, "parameters": parameters}
