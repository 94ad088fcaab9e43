"""Links of the description: each leads to an operation, and with values that the answer before it
has."""

import re
from typing import Any

import httpx2

from api.links import NEXT
from tests.api.stage import Stage, description, operation_of

GENERATE: dict[str, Any] = {"kind": "generate", "model": "adult", "n": 10}
BODIES: dict[str, dict[str, Any]] = {
    "push_version": {"content": b""},
    "set_alias": {"json": {"version": 1}},
}


def operations() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Method, address and description by operation."""
    paths = description()["paths"]
    return {
        operation["operationId"]: (method, path, operation)
        for path in paths
        for method, operation in paths[path].items()
    }


def test_each_link_leads_to_an_operation_and_says_where_its_values_are() -> None:
    described = operations()
    for source, (_, path, operation) in described.items():
        successes = [
            answer for status, answer in operation["responses"].items() if status.startswith("2")
        ]
        for answer in successes:
            assert bool(answer.get("links")) == (source in NEXT)
            for name, link in answer.get("links", {}).items():
                _, target, following = described[link["operationId"]]
                parameters = {parameter["name"] for parameter in following["parameters"]}
                assert set(link["parameters"]) <= parameters, (source, name)
                assert set(re.findall(r"{(\w+)}", target)) - {"alias"} <= set(link["parameters"]), (
                    source,
                    name,
                )
                for expression in link["parameters"].values():
                    where, _, field = expression.rpartition("#/" if "#/" in expression else ".")
                    assert where in ("$response.body", "$request.path")
                    assert where == "$response.body" or f"{{{field}}}" in path


def test_links_lead_from_what_was_made_to_all_that_can_be_done_with_it(stage: Stage) -> None:
    stage.model()
    job = stage.post("/v1/jobs", json=GENERATE)
    stage.work_off()
    file = stage.post("/v1/files", params={"name": "a.csv"}, content=b"age\n1\n")
    stage.work_off()
    alias = stage.ask("PUT", "/v1/models/adult/aliases/good", json={"version": 1})
    assert followed(stage, job) == {
        "get_job": 200,
        "get_results": 200,
        "list_errors": 200,
        "list_anomalies": 409,  # it is no score job
        "cancel_job": 409,
        "retry_job": 409,
        "delete_job": 204,
    }
    assert followed(stage, file) == {"get_file": 200, "delete_file": 204}
    assert followed(stage, alias)["get_version"] == 200


def followed(stage: Stage, answer: httpx2.Response) -> dict[str, int]:
    """The statuses of what an answer's links lead to, deletions last."""
    operation = operation_of(description(), answer.request.method, answer.request.url.path)
    assert operation is not None
    links = operation["responses"][str(answer.status_code)]["links"]
    return {
        name: asked(stage, links[name], answer)
        for name in sorted(links, key=lambda name: "delete" in name)
    }


def asked(stage: Stage, link: dict[str, Any], answer: httpx2.Response) -> int:
    method, target, _ = operations()[link["operationId"]]
    values = {name: value(expression, answer) for name, expression in link["parameters"].items()}
    body = BODIES.get(link["operationId"], {})
    return stage.ask(method.upper(), target.format(**values), **body).status_code


def value(expression: str, answer: httpx2.Response) -> str:
    if "#/" in expression:
        return str(answer.json()[expression.partition("#/")[2]])
    return answer.request.url.path.rpartition("/")[2]
