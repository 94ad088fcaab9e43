"""Clients of the service under faults: each sends a request again, under its key, until it is
answered."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
from sqlalchemy import text

from nelbo.errors import Unavailable
from nelbo.ids import new_id
from nelbo.jobs import JobRequest
from tests.system.faults import oracle
from tests.worker.stage import Stage

AT_ONCE = 3
"""Large jobs that are always under way."""
PAUSE_S = 0.1
SMALL_EVERY_S = 0.7
REFUSED = frozenset({429, 503})
GIVE_UP_S = 180.0
_UNFINISHED = text("SELECT COUNT(*) FROM job WHERE finished_at IS NULL AND rows >= :rows")


@dataclass(frozen=True)
class Recipe:
    """A request and what it gives undisturbed."""

    request: JobRequest
    reference: oracle.Reference
    large: bool = True


@dataclass(frozen=True)
class Answer:
    """`at` is when it was asked, by this machine's clock; `status` is 0 where the connection was
    lost."""

    at: float
    seconds: float
    status: int


@dataclass
class Clients:
    """`keys` holds the job that was acknowledged under each key, `wanted` what the job has to
    give."""

    stage: Stage
    url: str
    recipes: Sequence[Recipe]
    keys: dict[str, str] = field(default_factory=dict)
    wanted: dict[str, oracle.Reference] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._feed, name="clients", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """What was begun is acknowledged first."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(GIVE_UP_S)

    def submit(self, recipe: Recipe, key: str | None = None) -> str:
        """The id of the job that was acknowledged for this recipe, under a key of its own if none
        is given."""
        key = key or new_id()
        body = recipe.request.model_dump(mode="json")
        answer = self.ask(
            lambda client: client.post("/v1/jobs", json=body, headers={"Idempotency-Key": key})
        )
        if answer.status_code != 202:
            self.broken.append(
                f"a submission was answered {answer.status_code}: {answer.text[:200]}"
            )
            return ""
        job_id = str(answer.json()["id"])
        if self.keys.setdefault(key, job_id) != job_id:
            self.broken.append(
                f"key {key} was answered with the jobs {self.keys[key]} and {job_id}"
            )
        self.wanted[job_id] = recipe.reference
        return job_id

    def cancel(self, job_id: str) -> bool:
        """False where it had ended before."""
        return self._steer(job_id, "cancel")

    def retry(self, job_id: str) -> bool:
        return self._steer(job_id, "retry")

    def ask(self, send: Callable[[httpx2.Client], httpx2.Response]) -> httpx2.Response:
        """The first answer that is not a refusal."""
        end = time.monotonic() + GIVE_UP_S
        with httpx2.Client(base_url=self.url, timeout=60, trust_env=False) as client:
            while True:
                if (
                    answer := self._once(client, send)
                ) is not None and answer.status_code not in REFUSED:
                    return answer
                if time.monotonic() > end:
                    raise AssertionError(
                        f"no answer for {GIVE_UP_S:.0f} s; the last was {answer and answer.text}"
                    )
                time.sleep(PAUSE_S)

    def _once(
        self, client: httpx2.Client, send: Callable[[httpx2.Client], httpx2.Response]
    ) -> httpx2.Response | None:
        at, begun = time.time(), time.monotonic()
        try:
            answer = send(client)
        except httpx2.TransportError:
            answer = None
        self.answers.append(
            Answer(at, time.monotonic() - begun, answer.status_code if answer is not None else 0)
        )
        return answer

    def _steer(self, job_id: str, verb: str) -> bool:
        answer = self.ask(lambda client: client.post(f"/v1/jobs/{job_id}:{verb}"))
        if answer.status_code not in (200, 202, 409):
            self.broken.append(f"{verb} was answered {answer.status_code}: {answer.text[:200]}")
        return answer.is_success

    def _feed(self) -> None:
        large, small = (
            [recipe for recipe in self.recipes if recipe.large is size] for size in (True, False)
        )
        number, next_small = 0, 0.0
        while not self._over.wait(PAUSE_S):
            try:
                if self._large_unfinished() < AT_ONCE:
                    self.submit(large[number % len(large)])
                    number += 1
                elif time.monotonic() >= next_small:
                    self.submit(small[number % len(small)])
                    next_small = time.monotonic() + SMALL_EVERY_S
            except Unavailable:
                continue
            except Exception as problem:
                self.broken.append(f"a client ended: {problem!r}")
                raise

    def _large_unfinished(self) -> int:
        rows = min(recipe.reference.rows.num_rows for recipe in self.recipes if recipe.large)
        with self.stage.database.read() as connection:
            return int(connection.execute(_UNFINISHED, {"rows": rows}).scalar_one())


def errand(work: Callable[[], Any]) -> Callable[[], bool]:
    """Do it in a thread of its own; what says whether it is done."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return lambda: not thread.is_alive()
