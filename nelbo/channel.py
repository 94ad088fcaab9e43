"""kombu's Redis transport, from which a worker gets hints and nothing else, whatever somebody wrote
into Redis.

kombu takes each message for one that Celery sent: what is no JSON ends the pool, what is compressed
grows without a limit, and a header may start a timer or another task. Here only the job's id is
taken out of a message, and the hint is made anew.
"""

import base64
import contextlib
import functools
import json
import uuid
from collections.abc import Iterator
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import ResponseError

from nelbo import logs

WORK = "nelbo.work"
QUEUE = "nelbo"
LARGEST = 4_096
"""Bytes of a message. A hint has about 1,000."""

log = logs.get(__name__)


def use() -> None:
    """Let kombu open redis://, rediss:// and redis+socket:// with this transport."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"


def hinted_job(message: bytes) -> str | None:
    """The id of the job that a message of Celery's protocol 2 hints at, None where it is no
    hint."""
    if len(message) > LARGEST:
        return None
    try:
        sent = json.loads(message)
        args, _, _ = json.loads(base64.b64decode(sent["body"]))
        [job_id] = args
        is_hint = sent["headers"]["task"] == WORK and isinstance(job_id, str)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return job_id if is_hint else None


def hint(job_id: str) -> bytes:
    """The message that Celery makes of a hint, with an id of its own."""
    tag = str(uuid.uuid4())
    body = json.dumps(
        [[job_id], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    )
    return json.dumps(
        {
            "body": base64.b64encode(body.encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": WORK,
                "id": tag,
                "root_id": tag,
                "retries": 0,
                "timelimit": [None, None],
            },
            "properties": {
                "body_encoding": "base64",
                "delivery_info": {"exchange": "", "routing_key": QUEUE},
                "delivery_mode": 2,
                "delivery_tag": tag,
                "priority": 0,
            },
        }
    ).encode()


class Client(redis.PrefixedStrictRedis):
    """A connection whose answers to BRPOP and RPOP are hints."""

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        answer = super().parse_response(connection, command_name, **options)
        if answer and command_name == "BRPOP":
            queue, message = answer
            return (queue, made) if (made := _made_anew(message)) else None
        if answer and command_name == "RPOP":
            return _made_anew(answer)
        return answer


class Channel(redis.Channel):
    """A channel of such clients, which keeps in memory what it took and not in Redis.

    A pool that is killed loses the hints in its hand, and the dispatcher hints again in its next
    round. kombu's books in Redis would bring them back after minutes, and need a lock in Lua, which
    the broker's user may not run.
    """

    ack_emulation = False
    do_restore = False

    def _get_client(self) -> Any:
        return functools.partial(Client, global_keyprefix=self.global_keyprefix)

    def _queue_bind(self, *_: Any) -> None:
        """Nothing to note down: a hint names its queue."""

    def _brpop_read(self, **options: Any) -> Any:
        with self._readable():
            return super()._brpop_read(**options)
        raise Empty

    def _size(self, queue: str) -> int:
        with self._readable():
            return int(super()._size(queue))
        return 0

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Remove what somebody put in the queue's place."""
        try:
            yield
        except ResponseError as problem:
            if "WRONGTYPE" not in str(problem):
                raise
            log.warning("queue removed: it was no list")
            self._create_client().delete(
                *(self._q_for_pri(QUEUE, priority) for priority in self.priority_steps)
            )


class Transport(redis.Transport):
    """A transport of such channels."""

    Channel = Channel


def _made_anew(message: bytes) -> bytes | None:
    job_id = hinted_job(message)
    if job_id is None:
        log.warning("message dropped: it is no hint", bytes=len(message))
        return None
    return hint(job_id)
