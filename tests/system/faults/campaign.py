"""A campaign: the service under load, faults of all kinds by a seed, several at once, and what came
of it."""

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import text

from nelbo.errors import Unavailable
from nelbo.jobs import AugmentRequest, GenerateRequest, JobRequest, ScoreRequest
from nelbo.store import ledger
from nelbo.store.catalog import VersionEntry
from tests.deadline import until
from tests.system.faults import oracle
from tests.system.faults.arena import CHUNK_ROWS, QUICK, arena
from tests.system.faults.clients import Answer, Clients, Recipe
from tests.system.faults.inside.sitecustomize import POISON_ALPHA, POISON_ROW
from tests.system.faults.kinds import KINDS, Cancel, Course, Kind, Missed, Over, Running, Scene
from tests.worker.stage import OWNER, Stage, table

AT_ONCE = 3
"""Faults that hold at the same time."""
GIVEN_ROWS = 6_000
SMALL_ROWS = 200
POISONED_ROWS = 8
PAUSE_S = (0.4, 1.4)
STUCK_S = 180.0
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Blow:
    """A fault that happened, from when to when by the clock of this machine, which is the
    database's too."""

    kind: Kind
    at: float
    over: float
    hit: tuple[Running, ...]


@dataclass(frozen=True)
class Record:
    """All that is known at the end of a campaign."""

    title: str
    seed: int
    blows: tuple[Blow, ...]
    verdict: oracle.Verdict
    answers: tuple[Answer, ...]
    cancels: tuple[Cancel, ...]
    shutdowns_s: tuple[float, ...]
    hints_lost: int
    jobs_hinted: int
    """Jobs that a dispatcher hinted for."""
    claims_per_chunk: float
    recovery_s: tuple[float, ...]
    rows_per_s: float
    rows_per_s_undisturbed: float | None
    seconds: float
    worker_log: str
    api_log: str


@dataclass
class Holding:
    """A fault that is not over."""

    kind: Kind
    course: Course
    over: Over = lambda: True
    hit: tuple[Running, ...] = ()
    at: float = field(default_factory=time.time)
    begun: float = field(default_factory=time.monotonic)


@dataclass
class Campaign:
    """`step` is called again and again until it says that all is over. `bag` holds the kinds that
    are to strike next."""

    scene: Scene
    kinds: Sequence[Kind]
    injections: int
    pause_s: tuple[float, float]
    at_once: int
    tell: Tell
    blows: list[Blow] = field(default_factory=list)
    bag: list[Kind] = field(default_factory=list)
    holding: list[Holding] = field(default_factory=list)
    struck: int = 0
    _next_at: float = 0.0

    def step(self) -> bool:
        for held in list(self.holding):
            if held.over():
                self._go_on(held)
            elif time.monotonic() - held.begun > STUCK_S:
                raise AssertionError(
                    f"the fault {held.kind.name} is not over after {STUCK_S:.0f} s"
                )
        if (
            self.struck < self.injections
            and time.monotonic() >= self._next_at
            and len(self.holding) < self.at_once
        ):
            self._strike()
        return self.struck >= self.injections and not self.holding

    def restore(self) -> None:
        """End every fault that still holds, however this ended."""
        for held in self.holding:
            held.course.close()

    def _strike(self) -> None:
        if not self.bag:
            self.bag = [*self.kinds]
            self.scene.chance.shuffle(self.bag)
        busy = {held.kind.touches for held in self.holding}
        for kind in self.bag:
            if kind.touches not in busy and self._begin(kind):
                self.bag.remove(kind)
                self.struck += 1
                self._next_at = time.monotonic() + self.scene.chance.uniform(*self.pause_s)
                return

    def _begin(self, kind: Kind) -> bool:
        self.scene.hit = ()
        held = Holding(kind, kind.course(self.scene))
        try:
            held.over = next(held.course)
        except StopIteration:
            held.hit = self.scene.hit
            self._note(held)
        except (Missed, Unavailable):
            return False
        else:
            held.hit = self.scene.hit
            self.holding.append(held)
        return True

    def _go_on(self, held: Holding) -> None:
        try:
            held.over = next(held.course)
        except (StopIteration, Unavailable):
            # Unavailable: a look at the database while another fault has it breaks the course off,
            # its harm undone.
            self.holding.remove(held)
            self._note(held)

    def _note(self, held: Holding) -> None:
        self.blows.append(Blow(held.kind, held.at, time.time(), held.hit))
        self.tell(f"{len(self.blows)}/{self.injections} {held.kind.name}")


def run(
    title: str,
    folder: Path,
    *,
    injections: int,
    seed: int,
    kinds: Iterable[Kind] = KINDS,
    times: dict[str, str] = QUICK,
    pause_s: tuple[float, float] = PAUSE_S,
    at_once: int = AT_ONCE,
    measure_pace: bool = True,
    tell: Tell = lambda line: None,
) -> Record:
    """A whole campaign in an empty folder, on the database that the title begins with, with these
    settings of the workers. `pause_s` lies between two faults; `at_once` of them may hold at the
    same time. `measure_pace`: without faults first."""
    begun, database = time.monotonic(), title.partition(",")[0]
    with arena(database, folder, times) as made:
        recipes, poison = _recipes(made.stage)
        clients = Clients(made.stage, made.url, recipes)
        scene = Scene(
            made,
            clients,
            random.Random(seed),
            [recipe for recipe in recipes if not recipe.large],
            poison,
        )
        made.start_api()
        made.start_hosts()
        until(made.api_answers, "the API to answer")
        quiet = _quiet_rows_per_s(made.stage, clients) if measure_pace else None
        first = _moments(made.stage)[1]
        campaign = Campaign(scene, weighted(kinds, database), injections, pause_s, at_once, tell)
        _run(campaign, clients)
        rows_per_s = _rows_per_s(made.stage, first)
        made.end_hosts()
        return Record(
            title=title,
            seed=seed,
            blows=tuple(campaign.blows),
            verdict=_judge(scene),
            answers=tuple(clients.answers),
            cancels=tuple(scene.cancels),
            shutdowns_s=tuple(scene.shutdowns_s),
            hints_lost=scene.hints_lost,
            jobs_hinted=_number(made.stage, "SELECT COUNT(*) FROM job WHERE hinted_at IS NOT NULL"),
            claims_per_chunk=_claims_per_chunk(made.stage, first),
            recovery_s=_recoveries(made.stage, campaign.blows),
            rows_per_s=rows_per_s,
            rows_per_s_undisturbed=quiet,
            seconds=time.monotonic() - begun,
            worker_log=(folder / "worker.log").read_text(errors="replace"),
            api_log=(folder / "api.log").read_text(errors="replace"),
        )


def weighted(kinds: Iterable[Kind], database: str) -> list[Kind]:
    """Those that this database knows; twice those that the other one does not know."""
    return [
        kind
        for kind in kinds
        if kind.only in (None, database)
        for _ in range(2 if kind.only else 1)
    ]


def _run(campaign: Campaign, clients: Clients) -> None:
    clients.start()
    try:
        until(
            campaign.step,
            "all faults to be over",
            deadline_s=120.0 + 20.0 * campaign.injections,
            pause_s=0.02,
        )
        clients.stop()
        until(lambda: _all_ended(clients.stage), "all jobs to end", deadline_s=180.0)
    finally:
        clients.stop()
        campaign.restore()


def _judge(scene: Scene) -> oracle.Verdict:
    clients, stage = scene.clients, scene.arena.stage
    found = list(clients.broken)
    found += [
        f"the API answered 500 at {answer.at}" for answer in clients.answers if answer.status == 500
    ]
    found += [
        f"job {job_id}: its row that kills is no error"
        for job_id in scene.poisoned
        if not _found(stage, job_id)
    ]
    return oracle.judge(stage.database, OWNER, clients.wanted, clients.keys, found)


def _found(stage: Stage, job_id: str) -> bool:
    """Also where the job was cancelled before."""
    with stage.database.read() as connection:
        asked = text(
            "SELECT state = 'cancelled' OR EXISTS (SELECT * FROM row_error WHERE job_id = job.id"
            " AND row = :row"
            " AND code = 'worker-died') FROM job WHERE id = :id"
        )
        return bool(connection.execute(asked, {"id": job_id, "row": POISON_ROW}).scalar_one())


def _recipes(stage: Stage) -> tuple[list[Recipe], Recipe]:
    """Large and small ones, and one with a row that kills; what each gives is computed in this
    process."""
    version, file_id = stage.version(), stage.file(table(GIVEN_ROWS)).id
    row = {"id": "r", "length": "1.0", "colour": "red", "width": "-2.0", "weight": "10.0"}
    large: list[tuple[JobRequest, int]] = [
        (GenerateRequest(model="linear", n=24_000, seed=11), 24_000),
        (ScoreRequest(model="linear", explain=True, file=file_id), GIVEN_ROWS),
        (AugmentRequest(model="linear", per_row=2, seed=5, file=file_id), GIVEN_ROWS),
        (GenerateRequest(model="linear", n=9_000, seed=12), 9_000),
    ]
    small = [GenerateRequest(model="linear", n=SMALL_ROWS, seed=seed) for seed in range(3)]
    recipes = [_recipe(stage, version, request, rows) for request, rows in large]
    recipes += [_recipe(stage, version, request, SMALL_ROWS, large=False) for request in small]
    poison = ScoreRequest(model="linear", alpha=POISON_ALPHA, rows=[row] * POISONED_ROWS)
    return recipes, _recipe(stage, version, poison, POISONED_ROWS, large=False)


def _recipe(
    stage: Stage, version: VersionEntry, request: JobRequest, rows: int, large: bool = True
) -> Recipe:
    given = {name: getattr(request, name, None) for name in ("file", "rows")}
    job, _ = ledger.submit(
        stage.database,
        OWNER,
        request,
        version_id=version.id,
        rows=rows,
        chunk_rows=CHUNK_ROWS,
        file_id=given["file"],
        inline=given["rows"],
    )
    stage.work()
    return Recipe(request, oracle.reference(stage.database, stage.job(job.id)), large)


def _all_ended(stage: Stage) -> bool:
    try:
        return _number(stage, "SELECT COUNT(*) FROM job WHERE finished_at IS NULL") == 0
    except Unavailable:
        return False


def _number(stage: Stage, statement: str) -> int:
    with stage.database.read() as connection:
        return int(connection.execute(text(statement)).scalar_one())


def _quiet_rows_per_s(stage: Stage, clients: Clients) -> float:
    """The pace without faults, of workers that are warm."""
    first = 0.0
    for _ in range(2):
        first = _moments(stage)[1]
        for recipe in clients.recipes:
            clients.submit(recipe)
        until(lambda: _all_ended(stage), "undisturbed jobs to end", 120.0)
    return _rows_per_s(stage, first)


def _moments(stage: Stage) -> tuple[float, float]:
    """When the first and the last chunk was done, by the database's clock."""
    with stage.database.read() as connection:
        first, last = connection.execute(text("SELECT MIN(at), MAX(at) FROM seen")).one()
        return float(first or 0.0), float(last or 0.0)


def _rows_per_s(stage: Stage, after: float) -> float:
    """Rows done between the first claim after this moment and the last chunk done."""
    span = (
        "SELECT MIN(at), MAX(CASE state WHEN 'done' THEN at END), SUM(CASE state WHEN 'done'"
        " THEN row_to - row_from END)"
    )
    with stage.database.read() as connection:
        first, last, rows = connection.execute(
            text(f"{span} FROM seen WHERE at > :after"), {"after": after}
        ).one()
    return float(rows) / (float(last) - float(first))


def _claims_per_chunk(stage: Stage, after: float) -> float:
    statement = text(
        "SELECT SUM(CASE state WHEN 'running' THEN 1.0 END) / COUNT(DISTINCT chunk_id) FROM seen"
        " WHERE at > :after AND state IN ('running', 'done')"
    )
    with stage.database.read() as connection:
        return float(connection.execute(statement, {"after": after}).scalar_one())


def _recoveries(stage: Stage, blows: Iterable[Blow]) -> tuple[float, ...]:
    """Seconds from the end of a process that held chunks until the last row of these was done, or
    known as an error; for each blow the longest, of jobs that were not cancelled."""
    statement = text(
        "SELECT MAX(seen.at) FROM seen JOIN job ON job.id = seen.job_id WHERE seen.job_id = :job_id"
        " AND seen.state = 'done'"
        " AND job.state = 'succeeded' AND seen.at > :at AND (seen.chunk_id = :chunk_id"
        " OR (seen.row_from < :row_to AND seen.row_to > :row_from))"
    )
    found = []
    with stage.database.read() as connection:
        for blow in blows:
            ends = [
                connection.execute(statement, _parameters(hit, blow.at)).scalar()
                for hit in blow.hit
            ]
            found += [
                max(known) - blow.at
                for known in [[end for end in ends if end is not None]]
                if known
            ]
    return tuple(found)


def _parameters(hit: Running, at: float) -> dict[str, object]:
    return {
        "job_id": hit.job_id,
        "chunk_id": hit.chunk_id,
        "row_from": hit.row_from,
        "row_to": hit.row_to,
        "at": at,
    }
