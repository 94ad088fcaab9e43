"""The description says exactly what the service takes and answers: the fields of a body, their
types, whose bodies are read, and the messages of errors."""

from pathlib import Path
from typing import Any

import pytest

from nelbo.errors import problem_types
from tests.api.stage import ROWS, Stage, bearer, description, make_key, open_stage, settings_for
from tests.api.test_answers import REQUESTS, WITH_BODY
from tests.messages import is_said

GENERATE: dict[str, Any] = {"kind": "generate", "model": "adult", "n": 10}
SCORE: dict[str, Any] = {"kind": "score", "model": "adult", "rows": ROWS}
AUGMENT, RECONSTRUCT = SCORE | {"kind": "augment"}, SCORE | {"kind": "reconstruct"}


@pytest.mark.parametrize("operation", sorted(WITH_BODY))
def test_who_holds_no_key_learns_nothing_of_the_bodies_that_are_taken(
    operation: str, tmp_path: Path, sqlite_url: str
) -> None:
    method, path, _ = REQUESTS[operation]
    make_key(sqlite_url, "ada")
    with open_stage(settings_for(tmp_path, sqlite_url)) as stage:
        for headers in ({}, bearer("nonsense")):
            headers |= {"Content-Type": "text/html"}
            assert (
                stage.client.request(method, path, content=b"x", headers=headers).status_code == 401
            )


@pytest.mark.parametrize(
    "request_", [GENERATE, SCORE, AUGMENT, RECONSTRUCT], ids=lambda request: request["kind"]
)
def test_the_fields_that_are_described_as_required_are_those_that_are(
    request_: dict[str, Any], stage: Stage
) -> None:
    stage.model()
    required = description()["components"]["schemas"][f"{request_['kind'].title()}Request"][
        "required"
    ]
    bare = {name: value for name, value in request_.items() if name in (*required, "rows")}
    assert stage.post("/v1/jobs", json=bare).status_code == 202
    for name in required:
        without = {field: value for field, value in bare.items() if field != name}
        assert stage.post("/v1/jobs", json=without).json()["type"] == "/problems/invalid-request"


@pytest.mark.parametrize(
    "request_",
    [
        GENERATE | {"n": "10"},
        GENERATE | {"n": True},
        GENERATE | {"n": 10.5},
        GENERATE | {"seed": False},
        GENERATE | {"seed": "7"},
        SCORE | {"alpha": "0.05"},
        SCORE | {"fdr": "0.05"},
        SCORE | {"explain": "yes"},
        SCORE | {"explain": 1},
        AUGMENT | {"per_row": "3"},
        AUGMENT | {"spread": True},
        RECONSTRUCT | {"mode": "true"},
        RECONSTRUCT | {"denoise": 1},
    ],
    ids=str,
)
def test_a_value_of_another_type_than_the_described_one_is_refused(
    request_: dict[str, Any], stage: Stage
) -> None:
    stage.model()
    assert stage.post("/v1/jobs", json=request_).json()["type"] == "/problems/invalid-request"


@pytest.mark.parametrize("version", [True, "1", 1.5])
def test_an_alias_is_pointed_at_a_number_alone(version: object, stage: Stage) -> None:
    stage.model()
    answer = stage.ask("PUT", "/v1/models/adult/aliases/good", json={"version": version})
    assert answer.json()["type"] == "/problems/invalid-request"


def test_a_number_without_a_fraction_is_an_integer_as_in_all_of_json(stage: Stage) -> None:
    stage.model()
    assert (
        stage.post("/v1/jobs", json=GENERATE | {"n": 10.0, "seed": 7.0}).json()["params"]["seed"]
        == 7
    )
    assert (
        stage.ask("PUT", "/v1/models/adult/aliases/good", json={"version": 1.0}).json()["aliases"][
            "good"
        ]
        == 1
    )


def examples_of_errors() -> list[tuple[str, str]]:
    """Code and message of each example of a problem document."""
    return [
        (code, example["value"]["detail"])
        for path in description()["paths"].values()
        for operation in path.values()
        for answer in operation["responses"].values()
        for code, example in answer.get("content", {})
        .get("application/problem+json", {})
        .get("examples", {})
        .items()
    ]


def test_every_example_of_an_error_is_a_message_that_the_code_raises() -> None:
    examples = examples_of_errors()
    assert len(examples) > 100
    for code, message in examples:
        assert is_said(problem_types()[code].__name__, message), message
