"""Requests that wait for the end of their job: one query asks for all of them."""

import asyncio
import time

from starlette.concurrency import run_in_threadpool

from nelbo import logs
from nelbo.errors import Unavailable
from nelbo.store import lookup
from nelbo.store.session import Database

SHORTEST_S = 0.02
LONGEST_S = 0.25
"""The pause between two queries is a tenth of the shortest wait so far, within these seconds."""

log = logs.get(__name__)


class Endings:
    """The waits of one process, for its event loop only. They need no thread each, and no
    connection to the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waits: dict[asyncio.Future[None], str] = {}
        self._newest_at = 0.0
        self._watch: asyncio.Task[None] | None = None
        self._is_stopping = False

    async def wait(self, job_id: str, wait_s: float) -> None:
        """Return when the job has ended or the service stops, after `wait_s` seconds at most."""
        ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waits[ending] = job_id
        self._newest_at = time.monotonic()
        if self._watch is None:
            self._watch = asyncio.create_task(self._look())
        try:
            await asyncio.wait([ending], timeout=wait_s)
        finally:
            del self._waits[ending]

    def stop(self) -> None:
        """End all waits soon."""
        self._is_stopping = True

    async def _look(self) -> None:
        """End the waits whose jobs have ended, as long as there are waits."""
        try:
            while self._waits:
                waited_s = time.monotonic() - self._newest_at
                await asyncio.sleep(min(max(SHORTEST_S, waited_s / 10), LONGEST_S))
                ended = await self._ended(set(self._waits.values()))
                for ending, job_id in self._waits.items():
                    if job_id in ended and not ending.done():
                        ending.set_result(None)
        finally:
            self._watch = None

    async def _ended(self, job_ids: set[str]) -> set[str]:
        if self._is_stopping:
            return job_ids
        try:
            return await run_in_threadpool(lookup.ended, self._database, job_ids)
        except Unavailable as problem:
            log.warning("jobs not looked up", problem=problem.message)
            return set()
