"""The one Celery task: a hint that there is work."""

from celery import shared_task

from nelbo.channel import WORK
from worker import process, runner


@shared_task(name=WORK)  # type: ignore[untyped-decorator]
def work(job_id: str) -> None:
    """Run the chunks that are due, each job in its turn. The hinted job has no priority."""
    runner.work(process.here())
