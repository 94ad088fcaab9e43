"""Hints: sent in order by a thread, never in anyone's way."""

from collections.abc import Callable
from threading import Event

from api.hints import Hints


def test_hints_are_sent_in_order_before_close_returns() -> None:
    sent: list[str] = []
    hints = Hints(sent.append)
    for number in range(50):
        hints.offer(f"job {number}")
    hints.close()
    assert sent == [f"job {number}" for number in range(50)]


def test_a_broker_that_hangs_holds_nobody_up_and_costs_only_hints() -> None:
    begun, go_on = Event(), Event()

    def hang(job_id: str) -> None:
        begun.set()
        go_on.wait(30)

    hints = Hints(hang, capacity=10)
    hints.offer("first")
    assert begun.wait(10)
    for number in range(15):
        hints.offer(str(number))
    assert hints.dropped == 5
    go_on.set()
    hints.close()


def test_a_hint_that_cannot_be_sent_does_not_stop_the_next() -> None:
    sent: list[str] = []
    assert_raised = _fails_once(sent.append)
    hints = Hints(assert_raised)
    hints.offer("lost")
    hints.offer("sent")
    hints.close()
    assert sent == ["sent"]


def _fails_once(send: Callable[[str], None]) -> Callable[[str], None]:
    failures = iter([ConnectionError("broker is down")])

    def once(job_id: str) -> None:
        for failure in failures:
            raise failure
        send(job_id)

    return once
