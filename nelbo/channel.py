"""kombu's Redis transport, reduced so that a worker gets hints and no other messages from Redis.

kombu trusts each message: one that is not JSON ends the pool, a compressed one may unpack to any
size, and a header may start a timer or another task. This transport takes only the job's id from a
message and builds a new hint with it.
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
"""Maximum size of a message in bytes. A hint has about 1,000."""

log = logs.get(__name__)


def use() -> None:
    """Let kombu open redis://, rediss:// and redis+socket:// with this transport."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"


def hinted_job(message: bytes) -> str | None:
    """The job's id in a message of Celery's protocol 2; None if the message is no hint."""
    if len(message) > LARGEST:
        return None
    try:
        content = json.loads(message)
        args, _, _ = json.loads(base64.b64decode(content["body"]))
        [job_id] = args
        is_hint = content["headers"]["task"] == WORK and isinstance(job_id, str)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return job_id if is_hint else None


def hint(job_id: str) -> bytes:
    """The message that Celery would send for a hint, with a new message id."""
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


class HintClient(redis.PrefixedStrictRedis):
    """A connection whose answers to BRPOP and RPOP are hints."""

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        answer = super().parse_response(connection, command_name, **options)
        if answer and command_name == "BRPOP":
            queue, message = answer
            new_hint = _rebuilt(message)
            return None if new_hint is None else (queue, new_hint)
        if answer and command_name == "RPOP":
            return _rebuilt(answer)
        return answer


class Channel(redis.Channel):
    """A channel of such clients. It keeps no record in Redis of the messages that it took.

    A pool that is killed loses the hints that it holds, and the dispatcher sends new ones in its
    next round. kombu's record would restore them only after minutes, and needs a lock in Lua, which
    the broker's user may not run.
    """

    ack_emulation = False
    do_restore = False

    def _get_client(self) -> Any:
        return functools.partial(HintClient, global_keyprefix=self.global_keyprefix)

    def _queue_bind(self, *_: Any) -> None:
        """Record no binding in Redis: a hint names its queue."""

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
        """Delete the queue if its key in Redis holds something else than a list."""
        try:
            yield
        except ResponseError as problem:
            if "WRONGTYPE" not in str(problem):
                raise
            log.warning("queue removed: it was no list")
            keys = [self._q_for_pri(QUEUE, priority) for priority in self.priority_steps]
            self._create_client().delete(*keys)


class Transport(redis.Transport):
    """A transport of such channels."""

    Channel = Channel


def _rebuilt(message: bytes) -> bytes | None:
    """A new hint for the same job; None if the message is no hint."""
    job_id = hinted_job(message)
    if job_id is None:
        log.warning("message dropped: it is no hint", bytes=len(message))
        return None
    return hint(job_id)
