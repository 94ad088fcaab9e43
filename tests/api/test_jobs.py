"""Jobs over HTTP, on both databases."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from nelbo.store import catalog, ledger, lookup
from nelbo.store.session import Database
from tests.api.stage import (
    ROWS,
    Stage,
    bearer,
    make_key,
    manifest,
    open_stage,
    settings_for,
    working,
)
from tests.deadline import until

GENERATE: dict[str, Any] = {"kind": "generate", "model": "adult", "n": 25_000, "seed": 7}


def test_a_job_is_accepted_whole_and_where_it_is_told(either: Stage) -> None:
    either.model()
    sent = either.post("/v1/jobs", json=GENERATE)
    assert sent.status_code == 202
    job = sent.json()
    assert sent.headers["location"] == f"/v1/jobs/{job['id']}"
    assert sent.headers["retry-after"] == "1"
    assert (job["kind"], job["state"], job["model"]) == ("generate", "queued", "adult@1")
    assert job["params"] == {"n": 25_000, "seed": 7}
    assert job["progress"]["rows"] == 25_000
    assert either.get(sent.headers["location"]).json() == job


def test_the_way_of_a_job_about_a_file(either: Stage) -> None:
    either.model()
    job_id = either.submit(kind="score", model="adult@champion", file=either.file(), alpha=0.3)
    claim = ledger.claim(either.service.database, "test", lease_s=60)
    assert claim is not None
    running = either.get(f"/v1/jobs/{job_id}")
    assert running.json()["state"] == "running"
    assert running.headers["retry-after"] == "1"
    assert ledger.release(either.service.database, claim)
    either.work_off()
    done = either.get(f"/v1/jobs/{job_id}")
    assert "retry-after" not in done.headers
    job = done.json()
    assert (job["state"], job["threshold"], job["summary"]["anomalies"]) == ("succeeded", 0.3, 1)
    assert job["progress"] == {"rows": 3, "rows_done": 3, "rows_failed": 0, "eta_s": None}


def test_one_key_makes_one_job_however_often_and_at_once_it_is_sent(either: Stage) -> None:
    either.model()
    with ThreadPoolExecutor(20) as pool:
        key = {"Idempotency-Key": "nightly-2026-11-22"}
        sent = list(
            pool.map(lambda _: either.post("/v1/jobs", json=GENERATE, headers=key), range(20))
        )
    assert {response.status_code for response in sent} == {202}
    assert len({response.json()["id"] for response in sent}) == 1
    assert len(either.get("/v1/jobs").json()["items"]) == 1


def test_a_key_gives_its_job_even_when_the_request_could_not_be_accepted_any_more(
    stage: Stage,
) -> None:
    stage.model()
    request = {"kind": "score", "model": "adult", "file": stage.file()}
    key = {"Idempotency-Key": "k"}
    job_id = stage.submit(headers=key, **request)
    stage.work_off()
    stage.ask("DELETE", f"/v1/files/{request['file']}")
    again = stage.post("/v1/jobs", json=request, headers=key)
    assert (again.status_code, again.json()["id"], again.json()["state"]) == (
        202,
        job_id,
        "succeeded",
    )


def test_a_key_belongs_to_one_request(stage: Stage) -> None:
    stage.model()
    key = {"Idempotency-Key": "k"}
    stage.submit(headers=key, **GENERATE)
    other = stage.post("/v1/jobs", json=GENERATE | {"seed": 8}, headers=key)
    assert other.status_code == 422
    assert other.json()["type"] == "/problems/idempotency-mismatch"


def test_a_job_without_a_seed_has_a_fresh_one_and_is_the_same_job_when_it_is_sent_again(
    stage: Stage,
) -> None:
    stage.model()
    request: dict[str, Any] = {"kind": "generate", "model": "adult", "n": 5}
    jobs = [stage.submit(**request) for _ in range(3)]
    seeds = {stage.get(f"/v1/jobs/{job_id}").json()["params"]["seed"] for job_id in jobs}
    assert len(seeds) == 3
    key = {"Idempotency-Key": "k"}
    job_id = stage.submit(headers=key, **request)
    assert stage.submit(headers=key, **request) == job_id
    assert stage.post("/v1/jobs", json=request | {"seed": 8}, headers=key).status_code == 422


def test_a_job_keeps_its_conditions_and_empty_ones_are_the_request_without(stage: Stage) -> None:
    stage.model()
    request = GENERATE | {"n": 5}
    empty: dict[str, Any] = {"where": [], "like": {}, "balance": None, "weights": {}}
    empty["rarity"] = None
    key = {"Idempotency-Key": "k"}
    job_id = stage.submit(headers=key, **request)
    assert stage.submit(headers=key, **request, **empty) == job_id
    assert stage.get(f"/v1/jobs/{job_id}").json()["params"] == {"n": 5, "seed": 7}
    more: dict[str, Any] = {
        "where": ["age >= 30"],
        "like": {"age": 39},
        "weights": {"job": {"smith": 1.0}},
    }
    job_id = stage.submit(**request, **more)
    assert stage.get(f"/v1/jobs/{job_id}").json()["params"] == {"n": 5, "seed": 7} | more


def test_a_spread_of_zero_is_the_same_request_as_none(stage: Stage) -> None:
    stage.model()
    request: dict[str, Any] = {"kind": "augment", "model": "adult", "rows": ROWS}
    key = {"Idempotency-Key": "k"}
    job_id = stage.submit(headers=key, **request)
    assert stage.submit(headers=key, **request, spread=0) == job_id
    assert stage.post("/v1/jobs", json=request | {"spread": 0.3}, headers=key).status_code == 422
    assert stage.get(f"/v1/jobs/{job_id}").json()["params"].keys() == {"per_row", "seed"}


def test_the_default_rank_is_the_same_request_as_none(stage: Stage) -> None:
    stage.model()
    request: dict[str, Any] = {"kind": "score", "model": "adult", "rows": ROWS}
    key = {"Idempotency-Key": "k"}
    job_id = stage.submit(headers=key, **request)
    assert stage.submit(headers=key, **request, rank="surprise") == job_id
    assert stage.post("/v1/jobs", json=request | {"rank": "nelbo"}, headers=key).status_code == 422
    assert "rank" not in stage.get(f"/v1/jobs/{job_id}").json()["params"]
    by_nelbo = stage.submit(**request, rank="nelbo")
    assert stage.get(f"/v1/jobs/{by_nelbo}").json()["params"]["rank"] == "nelbo"
    wrong = stage.post("/v1/jobs", json=request | {"rank": "kl"})
    assert (wrong.status_code, "'surprise' or 'nelbo'" in wrong.json()["detail"]) == (422, True)


def test_kept_columns_stand_in_the_job_and_are_those_of_the_model(stage: Stage) -> None:
    stage.model()
    request: dict[str, Any] = {"kind": "augment", "model": "adult", "rows": ROWS}
    job = stage.get(f"/v1/jobs/{stage.submit(**request, keep=['age'])}").json()
    assert job["params"]["keep"] == ["age"]
    refused = stage.post("/v1/jobs", json=request | {"keep": ["colour"]})
    assert (refused.status_code, "no column 'colour' to keep" in refused.json()["detail"]) == (
        422,
        True,
    )


def test_columns_to_fill_stand_in_the_job_and_are_those_of_the_model(stage: Stage) -> None:
    stage.model()
    request: dict[str, Any] = {"kind": "reconstruct", "model": "adult", "rows": ROWS}
    plain = stage.get(f"/v1/jobs/{stage.submit(**request)}").json()
    assert not {"columns", "leave_usual"} & plain["params"].keys()
    fields: dict[str, Any] = {"columns": ["age"], "leave_usual": True}
    job = stage.get(f"/v1/jobs/{stage.submit(**request, **fields)}").json()
    assert {name: job["params"][name] for name in fields} == fields
    refused = stage.post("/v1/jobs", json=request | {"columns": ["id"]})
    assert (refused.status_code, "no column 'id' to fill" in refused.json()["detail"]) == (
        422,
        True,
    )


def test_a_spread_stands_in_the_job_and_needs_a_model_that_knows_it(stage: Stage) -> None:
    stage.model()
    older = manifest("older").model_dump(mode="json")
    del older["graphs"]["spread"]
    catalog.add_version(stage.service.database, "local", "older", older, "e" * 64, state="ready")
    request: dict[str, Any] = {"kind": "augment", "rows": ROWS, "spread": 0.3}
    assert (
        stage.get(f"/v1/jobs/{stage.submit(model='adult', **request)}").json()["params"]["spread"]
        == 0.3
    )
    refused = stage.post("/v1/jobs", json=request | {"model": "older"})
    assert (refused.status_code, "train it again" in refused.json()["detail"]) == (422, True)
    stage.submit(**request | {"model": "older", "spread": 0})


@pytest.mark.parametrize(
    "preference",
    ["wait=20", "respond-async, wait=20", 'wait="20"', "handling=lenient; x, Wait = 20"],
)
def test_a_wait_is_answered_as_soon_as_the_job_has_finished(stage: Stage, preference: str) -> None:
    stage.model()
    with working(stage.service.database):
        sent = stage.post(
            "/v1/jobs",
            json={"kind": "score", "model": "adult", "rows": ROWS},
            headers={"Prefer": preference},
        )
    assert (sent.status_code, sent.json()["state"]) == (200, "succeeded")
    assert sent.headers["preference-applied"] == "wait=20"
    assert sent.elapsed.total_seconds() < 10


def test_a_look_at_a_job_waits_for_its_end_too(stage: Stage) -> None:
    stage.model()
    job_id = stage.submit(**GENERATE)
    over = stage.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=1"})
    assert (over.status_code, over.json()["state"]) == (200, "queued")
    assert over.headers["preference-applied"] == "wait=1"
    with working(stage.service.database):
        ended = stage.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"})
    assert ended.json()["state"] == "succeeded"


def test_a_look_at_an_ended_job_needs_no_place_to_wait(tmp_path: Path, sqlite_url: str) -> None:
    settings = settings_for(tmp_path, sqlite_url, max_waiting=1)
    with open_stage(settings) as stage:
        stage.model()
        ended = stage.submit(**GENERATE)
        stage.work_off()
        queued = stage.submit(**GENERATE)
        with stage.service.waiting.taken("somebody"):
            for job_id, status in ((ended, 200), (queued, 503)):
                sent = stage.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"})
                assert sent.status_code == status


def test_many_waits_ask_the_database_together(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.model()
    ids = [stage.submit(**GENERATE) for _ in range(8)]
    asked: list[set[str]] = []
    ended = lookup.ended

    def counted(database: Database, job_ids: set[str]) -> set[str]:
        asked.append(job_ids)
        return ended(database, job_ids)

    monkeypatch.setattr(lookup, "ended", counted)
    with ThreadPoolExecutor(8) as pool:
        waits = [
            pool.submit(stage.get, f"/v1/jobs/{job_id}", headers={"Prefer": "wait=30"})
            for job_id in ids
        ]
        until(lambda: set(ids) in asked, "all waits to be asked for at once")
        with working(stage.service.database):
            assert {wait.result().json()["state"] for wait in waits} == {"succeeded"}


def test_a_service_that_stops_lets_nobody_wait(stage: Stage) -> None:
    stage.model()
    job_id = stage.submit(**GENERATE)
    stage.service.endings.stop()
    sent = stage.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=60"})
    assert sent.json()["state"] == "queued"
    assert sent.elapsed.total_seconds() < 30


def test_a_wait_without_a_place_is_refused_before_the_job_is_stored(
    tmp_path: Path, sqlite_url: str
) -> None:
    settings = settings_for(tmp_path, sqlite_url, max_waiting=3, max_waiting_of_owner=2)
    keys = {owner: make_key(sqlite_url, owner) for owner in ("ann", "bob")}
    with open_stage(settings) as stage, ThreadPoolExecutor(4) as pool, ExitStack() as waiting:
        for owner in keys:
            stage.model(owner=owner)

        def submit(owner: str, **headers: str) -> int:
            return stage.post(
                "/v1/jobs", json=GENERATE, headers=bearer(keys[owner]) | headers
            ).status_code

        for owner in ("bob", "bob"):
            waiting.enter_context(stage.service.waiting.taken(owner))
        assert submit("bob", Prefer="wait=60") == 429
        assert stage.get("/v1/jobs", headers=bearer(keys["bob"])).json()["items"] == []
        assert submit("bob") == 202, "who does not wait takes no place"
        waited = pool.submit(submit, "ann", Prefer="wait=60")
        until(
            lambda: stage.get("/v1/jobs", headers=bearer(keys["ann"])).json()["items"],
            "her job is stored",
        )
        assert submit("ann", Prefer="wait=60") == 503
        stage.work_off()
        assert waited.result() == 200
        assert submit("ann", Prefer="wait=0") == 202, "her place is free again"


@pytest.mark.parametrize("field", ["model", "file"])
def test_a_name_that_nothing_can_have_is_refused_however_long_it_is(
    stage: Stage, field: str
) -> None:
    """To look for names that are like it would take the service long."""
    sent = stage.post(
        "/v1/jobs", json={"kind": "score", "model": "adult"} | {field: "x" * 5_000_000}
    )
    assert sent.status_code == 422
    assert len(sent.content) < 2_000


def test_a_wait_that_is_over_leaves_the_job_running(stage: Stage) -> None:
    stage.model()
    sent = stage.post("/v1/jobs", json=GENERATE, headers={"Prefer": "wait=0"})
    assert (sent.status_code, sent.json()["state"]) == (202, "queued")
    later = stage.post("/v1/jobs", json=GENERATE, headers={"Prefer": "wait=1"})
    assert (later.status_code, later.json()["state"]) == (202, "queued")
    assert later.elapsed.total_seconds() >= 1


def test_cancel_and_retry(either: Stage) -> None:
    either.model()
    job_id = either.submit(**GENERATE)
    cancelled = either.post(f"/v1/jobs/{job_id}:cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert cancelled.json()["cancel_requested"] is True
    assert either.work_off() == 0
    assert either.post(f"/v1/jobs/{job_id}:cancel").status_code == 409
    again = either.post(f"/v1/jobs/{job_id}:retry")
    assert (again.status_code, again.json()["state"]) == (202, "queued")
    either.work_off()
    assert either.get(f"/v1/jobs/{job_id}").json()["state"] == "succeeded"
    assert either.post(f"/v1/jobs/{job_id}:retry").status_code == 409


def test_jobs_are_listed_by_state_and_kind_in_pages(either: Stage) -> None:
    either.model()
    generated = [either.submit(**GENERATE) for _ in range(3)]
    either.work_off()
    scored = either.submit(kind="score", model="adult", rows=ROWS)

    def listed(**params: Any) -> list[str]:
        return [job["id"] for job in either.get("/v1/jobs", params=params).json()["items"]]

    assert listed() == [scored, *generated[::-1]]
    assert listed(state="succeeded") == generated[::-1]
    assert listed(kind="score") == [scored]
    page = either.get("/v1/jobs", params={"limit": 2}).json()
    assert listed(cursor=page["next_cursor"]) == generated[1::-1]
    assert either.get("/v1/jobs", params={"cursor": "no-cursor-of-ours"}).status_code == 422


def test_reading_and_verifying_are_not_jobs_of_anyone(stage: Stage) -> None:
    stage.file()
    assert stage.get("/v1/jobs").json()["items"] == []


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"kind": "score", "model": "adlut", "rows": ROWS}, 404, "did you mean adult"),
    ({"kind": "score", "model": "adult@9", "rows": ROWS}, 404, "'9'"),
    ({"kind": "score", "model": "ad\0ult", "rows": ROWS}, 404, "no model"),
    ({"kind": "score", "model": "adult", "file": "nothing"}, 404, "no file nothing"),
    ({"kind": "score", "model": "adult", "file": "no\0thing"}, 404, "no file"),
    ({"kind": "score", "model": "adult"}, 422, "either 'file' or 'rows'"),
    (
        {"kind": "score", "model": "adult", "rows": ROWS, "file": "x"},
        422,
        "either 'file' or 'rows'",
    ),
    ({"kind": "score", "model": "adult", "rows": []}, 422, "at least one row"),
    ({"kind": "score", "model": "adult", "rows": [{"age": 1}]}, 422, "lacks"),
    (
        {"kind": "score", "model": "adult", "rows": [{"age": [1], "job": "x"}]},
        422,
        "row 0, column 'age'",
    ),
    ({"kind": "score", "model": "adult", "rows": [ROWS[0]] * 1_001}, 413, "max_inline_rows"),
    ({"kind": "score", "model": "adult", "rows": ROWS, "alpha": 1.5}, 422, "/body/score/alpha"),
    ({"kind": "score", "model": "adult", "rows": ROWS, "beta": 4}, 422, "/body/score/beta"),
    ({"kind": "train", "model": "adult"}, 422, "/body"),
    ({"kind": "generate", "model": "adult", "n": 0}, 422, "/body/generate/n"),
    ({"kind": "generate", "model": "adult", "n": -5}, 422, "/body/generate/n"),
    ({"kind": "generate", "model": "adult", "n": 1_000_000_000}, 413, "max_job_rows"),
    ({"kind": "generate", "model": "adult", "n": 10**30}, 413, "max_job_rows"),
    ({"kind": "generate", "model": "adult", "n": 1, "seed": -1}, 422, "/body/generate/seed"),
    (GENERATE | {"where": ["size = 3"]}, 422, "no column 'size'"),
    (GENERATE | {"where": ["job = pilot"]}, 422, "those that may be made are 'clerk', 'smith'"),
    (GENERATE | {"where": ["age > 40", "age < 30"]}, 422, "leave one of them out"),
    (
        GENERATE | {"where": ["age > 90 and job = smith"]},
        422,
        "no row that meets the conditions keeps the rule 'job = smith => age <= 90'",
    ),
    (GENERATE | {"where": "age > 40"}, 422, "/body/generate/where"),
    (GENERATE | {"where": [3]}, 422, "/body/generate/where/0"),
    (GENERATE | {"rarity": [99, 95]}, 422, "write the smaller percentile first"),
    (GENERATE | {"rarity": [95, 101]}, 422, "/body/generate/rarity"),
    (GENERATE | {"rarity": "95:99"}, 422, "/body/generate/rarity"),
    (GENERATE | {"like": {"age": [1]}}, 422, "'age' to be like"),
    (GENERATE | {"balance": "age"}, 422, "holds integer values"),
    (GENERATE | {"weights": {"job": {"clerk": -1}}}, 422, "/body/generate/weights/job/clerk"),
    (GENERATE | {"weights": {"job": {"pilot": 1}}}, 422, "no category 'pilot'"),
    (
        {"kind": "augment", "model": "adult", "rows": ROWS, "balance": "age"},
        422,
        "no categories in a column 'age' to balance; its columns of categories are job",
    ),
    (
        {"kind": "augment", "model": "adult", "rows": ROWS, "balance": "job", "per_row": 2},
        422,
        "leave out per_row, or balance",
    ),
    (
        {"kind": "augment", "model": "adult", "rows": ROWS, "per_row": 1_001},
        422,
        "/body/augment/per_row",
    ),
    (
        {"kind": "augment", "model": "adult", "rows": ROWS, "spread": 1.5},
        422,
        "/body/augment/spread",
    ),
    (
        {"kind": "augment", "model": "adult", "rows": ROWS, "spread": -0.1},
        422,
        "/body/augment/spread",
    ),
]


def test_what_cannot_run_is_refused_before_it_is_accepted(either: Stage) -> None:
    either.model()
    for request, status, words in REFUSED:
        sent = either.post("/v1/jobs", json=request)
        assert sent.status_code == status, request
        assert words in sent.json()["detail"], request
    assert either.get("/v1/jobs").json()["items"] == []


def test_a_wrong_field_is_pointed_at(stage: Stage) -> None:
    stage.model()
    problem = stage.post("/v1/jobs", json={"kind": "generate", "model": "adult", "n": 0}).json()
    assert problem["type"] == "/problems/invalid-request"
    (error,) = problem["errors"]
    assert (error["pointer"], error["code"]) == ("/body/generate/n", "greater-than")


def test_a_file_that_is_being_read_is_worth_waiting_for(stage: Stage) -> None:
    stage.model()
    file_id = stage.post(
        "/v1/files", params={"name": "a.csv"}, content=b"id,age,job\n1,2,x\n"
    ).json()["id"]
    refused = stage.post("/v1/jobs", json={"kind": "score", "model": "adult", "file": file_id})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/not-ready")
    assert int(refused.headers["retry-after"]) >= 1


def test_odd_cells_of_inline_rows_become_text_that_either_database_holds(either: Stage) -> None:
    either.model()
    rows = (
        '[{"id": "\\u00fc", "age": 1e400, "job": null}, {"id": 9007199254740993, "age": NaN,'
        ' "job": true}]'
    )
    sent = either.post(
        "/v1/jobs",
        content=f'{{"kind": "score", "model": "adult", "rows": {rows}}}',
        headers={"Content-Type": "application/json"},
    )
    assert sent.status_code == 202, sent.text
    claim = ledger.claim(either.service.database, "test", lease_s=60)
    assert claim is not None
    assert claim.inline == [
        {"id": "ü", "age": "inf", "job": None},
        {"id": "9007199254740993", "age": None, "job": "true"},
    ]


def test_deleting_a_job_takes_its_results_along(either: Stage) -> None:
    either.model()
    job_id = either.finished(kind="score", model="adult", rows=ROWS)
    assert either.ask("DELETE", f"/v1/jobs/{job_id}").status_code == 204
    for part in ("", "/results", "/errors", "/anomalies"):
        assert either.get(f"/v1/jobs/{job_id}{part}").status_code == 410
    assert either.get("/v1/jobs").json()["items"] == []


def test_an_address_is_never_a_crash(either: Stage) -> None:
    odd = [
        "a%00b",
        "%ff%fe",
        "'%20OR%201=1",
        "x" * 5_000,
        "%F0%9F%90%9A",
        "..%2f..%2fetc",
        "0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11 ",
    ]
    for name in odd:
        for address in (
            f"/v1/jobs/{name}",
            f"/v1/files/{name}",
            f"/v1/jobs/{name}/results",
            f"/v1/jobs/{name}/",
        ):
            assert either.client.get(address).status_code == 404, address
        assert either.client.get(f"/v1/models/{name}").status_code in (404, 422)
        assert either.client.get(f"/v1/models/adult/versions/{name}").status_code in (404, 422)


def test_a_clean_job_needs_a_worker_that_can_clean(either: Stage) -> None:
    request: dict[str, Any] = {"kind": "clean", "file": either.file()}
    refused = either.post("/v1/jobs", json=request)
    assert refused.status_code == 503
    assert "retry-after" in refused.headers
    assert "nelbo[training]" in refused.json()["detail"]
    assert either.get("/v1/jobs").json()["items"] == []

    either.cleaner()
    job = either.get(f"/v1/jobs/{either.submit(**request)}").json()
    assert (job["kind"], job["model"], job["progress"]["rows"]) == ("clean", None, 3)
    assert job["params"] == {"alpha": 0.05, "quick": False, "seed": 0}


def test_a_clean_job_takes_rows_of_any_columns_and_lists_cells_the_oddest_row_first(
    either: Stage,
) -> None:
    either.cleaner()
    rows = [{"a": 1.5, "b": None}, {"a": 2}]
    job_id = either.finished(kind="clean", rows=rows, alpha=1, seed=3)
    csv = either.get(f"/v1/jobs/{job_id}/results", params={"format": "csv"}).text
    assert [line.split(",")[0] for line in csv.splitlines()] == ["row", "1", "1", "0"]
    assert either.get(f"/v1/jobs/{job_id}").json()["summary"] == {
        **{"rows": 2, "rows_failed": 0},
        **{"listed": 2, "probably_wrong": 1},
    }
    assert either.get(f"/v1/jobs/{job_id}/anomalies").status_code == 409


@pytest.mark.parametrize("source", ["file", "rows"])
def test_an_explain_job_is_one_chunk_of_all_rows(either: Stage, source: str) -> None:
    either.model()
    rows = {"file": either.file()} if source == "file" else {"rows": [*ROWS, *ROWS[:1]]}
    job_id = either.finished(errors=(1,), kind="explain", model="adult", **rows)
    job = either.get(f"/v1/jobs/{job_id}").json()
    assert (job["kind"], job["model"], job["progress"]["rows"]) == ("explain", "adult@1", 3)
    assert job["params"] == {"top": 10, "columns": 3, "repair": False, "seed": 0}
    assert job["summary"] == {"rows": 3, "rows_failed": 1, "rows_explained": 2}
    csv = either.get(f"/v1/jobs/{job_id}/results", params={"format": "csv"}).text
    assert [line.split(",")[0] for line in csv.splitlines()] == ["row", "2", "2", "0"]
    assert either.get(f"/v1/jobs/{job_id}/anomalies").status_code == 409


def test_an_explain_job_about_a_row_that_is_not_there_is_refused(stage: Stage) -> None:
    stage.model()
    request: dict[str, Any] = {"kind": "explain", "model": "adult", "rows": ROWS}
    refused = stage.post("/v1/jobs", json=request | {"row_numbers": [0, 2]})
    assert refused.status_code == 404
    assert "the table has no row 2; it has 2, and the first is row 0" in refused.json()["detail"]
    for wrong in (
        {"top": 0},
        {"top": 10_001},
        {"row_numbers": [-1]},
        {"columns": 0},
        {"rank": "kl"},
    ):
        assert stage.post("/v1/jobs", json=request | wrong).status_code == 422, wrong
    job_id = stage.finished(**request, row_numbers=[1, 1], repair=True)
    job = stage.get(f"/v1/jobs/{job_id}").json()
    assert (job["params"]["row_numbers"], job["summary"]["rows_explained"]) == ([1, 1], 1)


def test_a_clean_job_names_its_rows_once_and_no_model(stage: Stage) -> None:
    stage.cleaner()
    for wrong in (
        {},
        {"file": "f", "rows": ROWS},
        {"rows": ROWS, "model": "adult"},
        {"rows": ROWS, "alpha": 0},
        {"rows": ROWS, "seed": -1},
        {"rows": ROWS, "seed": 2**63},
    ):
        assert stage.post("/v1/jobs", json={"kind": "clean"} | wrong).status_code == 422, wrong
