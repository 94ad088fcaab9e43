"""One line for each event, in one form, whoever logs it."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from nelbo import logs


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged; afterwards logging is as it was."""
    root = logging.getLogger()
    before, level, stream = root.handlers, root.level, io.StringIO()
    logs.configure("INFO", stream)
    yield stream
    root.handlers = before
    root.setLevel(level)


def test_an_event_of_ours_and_one_of_a_library_are_one_json_line_each(lines: io.StringIO) -> None:
    logs.get("worker").info("chunk done", job_id="j", rows=3)
    logging.getLogger("api").warning("hint not sent", extra={"job_id": "j"})
    ours, theirs = (json.loads(line) for line in lines.getvalue().splitlines())
    assert (ours["event"], ours["level"], ours["job_id"], ours["rows"]) == (
        "chunk done",
        "info",
        "j",
        3,
    )
    assert (theirs["event"], theirs["level"], theirs["job_id"]) == ("hint not sent", "warning", "j")


def test_an_exception_stays_on_its_line(lines: io.StringIO) -> None:
    try:
        raise ValueError("unexpected")
    except ValueError:
        logs.get("worker").warning("chunk not done", exc_info=True)
    (line,) = lines.getvalue().splitlines()
    assert "ValueError: unexpected" in json.loads(line)["exception"]


def test_what_is_below_the_level_is_not_written(lines: io.StringIO) -> None:
    logs.get("worker").debug("hinted", jobs=1)
    assert lines.getvalue() == ""


def test_fields_that_are_bound_once_are_on_each_line(lines: io.StringIO) -> None:
    log = logs.get("worker").bind(job_id="j")
    log.info("chunk done", rows=3)
    log.warning("lease lost")
    done, lost = (json.loads(line) for line in lines.getvalue().splitlines())
    assert (done["event"], done["job_id"], done["rows"]) == ("chunk done", "j", 3)
    assert (lost["event"], lost["job_id"], lost["logger"]) == ("lease lost", "j", "worker")
