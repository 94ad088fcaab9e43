"""The one Celery task: a hint that there is work."""

from celery import shared_task

from nelbo.channel import WORK
from worker import process, runner


@shared_task(name=WORK)  # type: ignore[untyped-decorator]
def work(job_id: str) -> None:
    """There is work on a job: do what is due, each job in its turn. The hinted one has no
    privilege."""
    runner.work(process.here())
