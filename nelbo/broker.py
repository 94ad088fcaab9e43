"""The broker: Celery messages that say "there is work on job J". They carry ids only, and nothing
depends on one arriving.

SQL knows all work. A hint that is lost costs one round of the dispatcher, a doubled one costs one
SELECT, which is why each socket operation has a time-out, nothing is sent twice and nothing here
raises because a broker is away.
"""

from collections import Counter
from typing import Any

from celery import Celery
from kombu.exceptions import ChannelError, OperationalError
from redis.exceptions import RedisError

from nelbo import channel, logs
from nelbo.channel import QUEUE, WORK
from nelbo.errors import InvalidInput
from nelbo.settings import Settings

AWAY = (OperationalError, ChannelError, RedisError, OSError)

log = logs.get(__name__)
counts: Counter[str] = Counter()
"""Hints of this process by outcome: sent, not_sent."""


def make_app(settings: Settings, timeout_s: float = 2.0) -> Celery:
    """The Celery application of a process that sends hints; a worker, whose reads may take longer,
    asks for `timeout_s` 5.

    The measurements behind these settings: without socket time-outs a frozen broker blocks for
    ever; without task_reject_on_worker_lost the hint of a killed child is acknowledged; a result
    backend, chords and ETAs would make Redis hold state that only SQL may hold. With a prefetch
    limit kombu stops to consume after so many hints that nobody acknowledged: hence no limit (0),
    and worker_disable_prefetch, which looks at what Celery has in hand. `nelbo.channel` checks what
    comes out of Redis.
    """
    if not settings.broker:
        raise InvalidInput(
            "no broker is set; NELBO_BROKER_URL wants redis://HOST:PORT/DB, or start everything"
            " with `nelbo up`"
        )
    channel.use()
    app = Celery("nelbo", broker=settings.broker, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=_transport(timeout_s),
        event_serializer="json",
        result_serializer="json",
        task_acks_late=True,
        task_default_queue=QUEUE,
        task_ignore_result=True,
        task_publish_retry=False,
        task_reject_on_worker_lost=True,
        task_serializer="json",
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_disable_prefetch=True,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_max_tasks_per_child=500,
        worker_prefetch_multiplier=0,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
    )
    return app


def send_hint(app: Celery, job_id: str) -> bool:
    """Tell the workers of a job; False where the broker did not take the hint, which is counted and
    logged, never raised."""
    try:
        app.send_task(WORK, args=(job_id,), queue=QUEUE, retry=False, ignore_result=True)
    except AWAY as problem:
        counts["not_sent"] += 1
        log.warning(
            "hint not sent",
            job_id=job_id,
            problem=str(problem),
            not_sent=counts["not_sent"],
        )
        return False
    counts["sent"] += 1
    return True


def waiting_hints(app: Celery) -> int | None:
    """How many hints no worker has taken yet; None where the broker does not answer."""
    try:
        with app.producer_pool.acquire(block=True, timeout=1.0) as producer:
            waiting: int = producer.channel.queue_declare(queue=QUEUE).message_count
    except AWAY as problem:
        log.debug("broker does not answer", problem=str(problem))
        return None
    return waiting


def _transport(timeout_s: float) -> dict[str, Any]:
    return {
        "global_keyprefix": "nelbo:",
        "health_check_interval": 5,
        # kombu's own loop around a connection that is refused takes 6 s without this.
        "max_retries": 0,
        "socket_connect_timeout": min(timeout_s, 2.0),
        "socket_keepalive": True,
        "socket_timeout": timeout_s,
    }
