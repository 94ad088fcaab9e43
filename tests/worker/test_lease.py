"""A lease ends the work when it is lost, when its clock is over, and when the worker is asked to
end."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from nelbo.errors import Unavailable
from tests.deadline import until
from worker import shutdown
from worker.lease import Lease, LeaseLost, ShuttingDown, Stopped

LONG_S = 600.0


def stopped(lease: Lease) -> Stopped | None:
    try:
        lease.check()
    except Stopped as reason:
        return reason
    return None


@pytest.fixture
def shutting_down() -> Iterator[None]:
    shutdown.announce()
    yield
    shutdown.withdraw()


def test_a_renewed_lease_outlives_its_first_end() -> None:
    renewals = threading.Semaphore(0)

    def renew() -> bool:
        renewals.release()
        return True

    lease_s = 2.0
    started = time.monotonic()
    with Lease(renew, lease_s, 0.1, started) as lease:
        until(lambda: time.monotonic() > started + 1.5 * lease_s, "the first end to pass")
        lease.check()
    assert renewals.acquire(blocking=False)


def test_a_lease_that_was_refused_stops_the_work() -> None:
    with Lease(lambda: False, LONG_S, 0.01, time.monotonic()) as lease:
        assert isinstance(until(lambda: stopped(lease), "the refusal to be seen"), LeaseLost)


def test_a_process_that_slept_past_its_lease_stops_by_its_own_clock() -> None:
    with (
        Lease(lambda: True, 10.0, 5.0, asked_at=time.monotonic() - 11.0) as lease,
        pytest.raises(LeaseLost),
    ):
        lease.check()


def test_a_database_that_does_not_answer_costs_the_lease_only_when_its_time_is_over() -> None:
    def renew() -> bool:
        raise Unavailable("the database does not answer")

    with Lease(renew, 0.5, 0.02, time.monotonic()) as lease:
        lease.check()
        assert isinstance(until(lambda: stopped(lease), "the lease to run out"), LeaseLost)


def test_the_work_goes_on_after_a_renewal_that_failed_once() -> None:
    answers = iter([Unavailable("the database does not answer")])
    renewed = threading.Event()

    def renew() -> bool:
        if problem := next(answers, None):
            raise problem
        renewed.set()
        return True

    with Lease(renew, LONG_S, 0.01, time.monotonic()) as lease:
        assert renewed.wait(10)
        lease.check()


@pytest.mark.usefixtures("shutting_down")
def test_a_worker_that_is_asked_to_end_stops_the_work() -> None:
    with (
        Lease(lambda: True, LONG_S, LONG_S, time.monotonic()) as lease,
        pytest.raises(ShuttingDown),
    ):
        lease.check()


def test_a_process_that_never_checks_ends_itself_and_its_lease_with_it() -> None:
    program = (
        "import time; from worker.lease import Lease\n"
        "with Lease(lambda: True, 600.0, 0.05, time.monotonic(), stuck_s=0.3):\n"
        "    time.sleep(600)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == -signal.SIGKILL
    assert "process is stuck and ends itself" in ran.stdout + ran.stderr


def test_a_process_that_checks_now_and_then_is_not_stuck() -> None:
    program = (
        "import time; from worker.lease import Lease\n"
        "with Lease(lambda: True, 600.0, 0.05, time.monotonic(), stuck_s=5.0) as lease:\n"
        "    for _ in range(80):\n"
        "        time.sleep(0.1)\n"
        "        lease.check()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
