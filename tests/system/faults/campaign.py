"""A campaign: workers under load, faults of all kinds one after the other by a seed, and what came of it."""

import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import text

from nelbo.errors import NelboError, Unavailable
from nelbo.jobs import AugmentRequest, GenerateRequest, JobRequest, ScoreRequest, new_id
from nelbo.store import ledger
from tests.deadline import until
from tests.system.faults import oracle
from tests.system.faults.arena import Arena, arena
from tests.system.faults.kinds import KINDS, Harm, Kind, Scene
from tests.worker.stage import OWNER, Stage, table

AT_ONCE = 3
"""Jobs that are always under way."""
GIVEN_ROWS = 6_000
SMALL_ROWS = 200
PAUSE_S = (0.1, 0.5)


@dataclass(frozen=True)
class Recipe:
    request: JobRequest
    rows: int
    chunk_rows: int
    file_id: str | None = None


@dataclass(frozen=True)
class Blow:
    """A fault that happened, by the clock of this machine, which is the database's too."""

    kind: str
    at: float
    harm: Harm


@dataclass(frozen=True)
class Outcome:
    database: str
    blows: tuple[Blow, ...]
    verdict: oracle.Verdict
    refused: int
    """Commits that the fence refused."""
    given_up: int
    """Chunks that a worker dropped by itself, for its lease was over."""
    claims_per_chunk: float
    recovery_s: tuple[float, ...]
    rows_per_s: float
    rows_per_s_undisturbed: float
    seconds: float

    def by_kind(self) -> Counter[str]:
        return Counter(blow.kind for blow in self.blows)


@dataclass
class Campaign:
    """`step` is called again and again until it says that all is over."""

    arena: Arena
    chance: random.Random
    kinds: Sequence[Kind]
    injections: int
    recipes: Sequence[Recipe]
    references: Sequence[oracle.Reference]
    small: Sequence[oracle.Reference]
    version_id: str
    blows: list[Blow] = field(default_factory=list)
    wanted: dict[str, oracle.Reference] = field(default_factory=dict)
    _keys: dict[str, str] = field(default_factory=dict)
    _pending: tuple[str, int] | None = None
    _bag: list[Kind] = field(default_factory=list)
    _undos: list[tuple[float, Kind, Harm]] = field(default_factory=list)
    _next_at: float = 0.0
    _submitted: int = 0

    def __post_init__(self) -> None:
        self.scene = Scene(self.arena, self.chance, self._keys, self._small_job, self.version_id)

    @property
    def keys(self) -> dict[str, str]:
        return self._keys

    def step(self) -> bool:
        try:
            self._undo()
            if len(self.blows) < self.injections:
                self._feed()
                self._strike()
            return len(self.blows) >= self.injections and not self._undos and not self._unfinished()
        except Unavailable:
            return False

    def restore(self) -> None:
        """End every fault that still holds, however this ended."""
        for _, _, harm in self._undos:
            harm.undo()

    def _undo(self) -> None:
        for entry in [entry for entry in self._undos if entry[0] <= time.monotonic()]:
            self._undos.remove(entry)
            try:
                entry[2].undo()
            except NelboError:
                # A job that ended meanwhile cannot be retried.
                continue

    def _strike(self) -> None:
        if time.monotonic() < self._next_at:
            return
        busy = {kind.touches for _, kind, _ in self._undos}
        if not self._bag:
            self._bag = list(self.kinds)
            self.chance.shuffle(self._bag)
        for kind in self._bag:
            if kind.touches in busy or (busy & {"database"} and kind.touches not in ("broker", "database")):
                continue
            at = time.time()
            if (harm := kind.strike(self.scene)) is None:
                continue
            self._bag.remove(kind)
            self.blows.append(Blow(kind.name, at, harm))
            self._undos.append((time.monotonic() + harm.hold_s, kind, harm))
            self._next_at = time.monotonic() + self.chance.uniform(*PAUSE_S)
            return

    def _feed(self) -> None:
        if self._pending is None and self._unfinished() < AT_ONCE:
            self._pending = new_id(), self._submitted % len(self.recipes)
            self._submitted += 1
        if self._pending is not None:
            # A submission whose answer is lost is sent again, under its key.
            key, at = self._pending
            self._keys[key] = job_id = submit(self.arena.stage, self.recipes[at], self.version_id, key)
            self.wanted[job_id] = self.references[at]
            self._pending = None

    def _small_job(self, job_id: str, seed: int) -> None:
        self.wanted[job_id] = self.small[seed]

    def _unfinished(self) -> int:
        with self.arena.stage.database.read() as connection:
            return int(connection.execute(text("SELECT COUNT(*) FROM job WHERE finished_at IS NULL")).scalar_one())


def run(database: str, folder: Path, *, injections: int, seed: int, kinds: Iterable[Kind] = KINDS) -> Outcome:
    """A whole campaign on a database of this kind, in an empty folder."""
    begun, used = time.monotonic(), tuple(kind for kind in kinds if kind.only in (None, database))
    with arena(database, folder) as made:
        stage = made.stage
        version_id = stage.version().id
        recipes = _recipes(stage.file(table(GIVEN_ROWS)).id)
        small = [Recipe(GenerateRequest(model="linear", n=SMALL_ROWS, seed=seed), SMALL_ROWS, SMALL_ROWS) for seed in range(3)]
        undisturbed = [submit(stage, recipe, version_id) for recipe in (*recipes, *small)]
        stage.work()
        references = [oracle.reference(stage.database, stage.job(job_id)) for job_id in undisturbed]
        made.start_hosts()
        quiet = _quiet_rows_per_s(stage, recipes, version_id)
        several = len(recipes)
        campaign = Campaign(
            made, random.Random(seed), used, injections, recipes, references[:several], references[several:], version_id
        )
        first = _moments(stage)[1]
        try:
            until(campaign.step, "all jobs to end", deadline_s=120.0 + 20.0 * injections)
        finally:
            campaign.restore()
        rows_per_s = _rows_per_s(stage, first)
        made.end_hosts()
        verdict = oracle.judge(stage.database, OWNER, campaign.wanted, campaign.keys)
        log = (stage.folder / "worker.log").read_text()
        return Outcome(
            database=database,
            blows=tuple(campaign.blows),
            verdict=verdict,
            refused=len(re.findall(r'"event": "commit refused"', log)),
            given_up=len(re.findall(r'"event": "lease lost"', log)),
            claims_per_chunk=_claims_per_chunk(stage, first),
            recovery_s=tuple(_recoveries(stage, campaign.blows)),
            rows_per_s=rows_per_s,
            rows_per_s_undisturbed=quiet,
            seconds=time.monotonic() - begun,
        )


def submit(stage: Stage, recipe: Recipe, version_id: str, key: str | None = None) -> str:
    job, _ = ledger.submit(
        stage.database,
        OWNER,
        recipe.request,
        version_id=version_id,
        rows=recipe.rows,
        chunk_rows=recipe.chunk_rows,
        file_id=recipe.file_id,
        idempotency_key=key,
        request_digest=key,
    )
    return job.id


def _recipes(file_id: str) -> list[Recipe]:
    return [
        Recipe(GenerateRequest(model="linear", n=24_000, seed=11), 24_000, 4_000),
        Recipe(ScoreRequest(model="linear", explain=True), GIVEN_ROWS, 2_000, file_id),
        Recipe(AugmentRequest(model="linear", per_row=2, seed=5), GIVEN_ROWS, 1_500, file_id),
        Recipe(GenerateRequest(model="linear", n=9_000, seed=12), 9_000, 1_000),
    ]


def _quiet_rows_per_s(stage: Stage, recipes: Sequence[Recipe], version_id: str) -> float:
    """The pace without faults, of workers that are warm."""
    first = 0.0
    for _ in range(2):
        first = _moments(stage)[1]
        jobs = [submit(stage, recipe, version_id) for recipe in recipes]
        until(lambda jobs=jobs: all(stage.job(job).state == "succeeded" for job in jobs), "undisturbed jobs to succeed", 120.0)  # type: ignore[misc]
    return _rows_per_s(stage, first)


def _moments(stage: Stage) -> tuple[float, float]:
    """When the first and the last chunk was done, by the database's clock."""
    with stage.database.read() as connection:
        first, last = connection.execute(text("SELECT MIN(at), MAX(at) FROM seen")).one()
        return float(first or 0.0), float(last or 0.0)


def _rows_per_s(stage: Stage, after: float) -> float:
    """Rows done between the first claim after this moment and the last chunk done."""
    span = "SELECT MIN(at), MAX(CASE state WHEN 'done' THEN at END), SUM(CASE state WHEN 'done' THEN row_to - row_from END)"
    with stage.database.read() as connection:
        first, last, rows = connection.execute(text(f"{span} FROM seen WHERE at > :after"), {"after": after}).one()
    return float(rows) / (float(last) - float(first))


def _claims_per_chunk(stage: Stage, after: float) -> float:
    statement = text(
        "SELECT SUM(CASE state WHEN 'running' THEN 1.0 END) / COUNT(DISTINCT chunk_id) FROM seen"
        " WHERE at > :after AND state IN ('running', 'done')"
    )
    with stage.database.read() as connection:
        return float(connection.execute(statement, {"after": after}).scalar_one())


def _recoveries(stage: Stage, blows: Iterable[Blow]) -> Iterator[float]:
    """Seconds from each fault that hit chunks until the last row of these was done; not of jobs that were cancelled."""
    statement = text(
        "SELECT MAX(seen.at) FROM seen JOIN job ON job.id = seen.job_id WHERE seen.job_id = :job_id AND seen.state = 'done'"
        " AND job.state = 'succeeded' AND seen.at > :at AND (seen.chunk_id = :chunk_id"
        " OR (seen.row_from < :row_to AND seen.row_to > :row_from))"
    )
    with stage.database.read() as connection:
        for blow in blows:
            ends = [connection.execute(statement, vars(hit) | {"at": blow.at}).scalar() for hit in blow.harm.hit]
            if known := [end for end in ends if end is not None]:
                yield max(known) - blow.at
