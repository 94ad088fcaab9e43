"""The one Celery task: a hint that there is work."""

from celery import shared_task

from nelbo.broker import WORK
from worker import process, runner


@shared_task(name=WORK)  # type: ignore[untyped-decorator]
def work(job_id: str) -> None:
    """There is work on a job: do some of it, and of any other that waits."""
    runner.work(process.here(), job_id)
