"""What a campaign shows, as figures: one table for people, one document for programs."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from tests.system.faults.campaign import Blow, Record
from tests.system.faults.clients import Answer
from tests.system.faults.kinds import Cancel

AFTER_S = 5.0
"""So long after a broker is back may it still slow down an answer."""
NEEDED = frozenset({"database", "api", "children", "zombie"})
"""A process that is frozen as it writes keeps SQLite's write lock."""
STOPPED = frozenset({"lease lost", "commit refused", "chunk handed back"})
Figures = dict[str, Any]


def of(record: Record) -> Figures:
    events, verdict, quiet = (
        _events(record.worker_log),
        record.verdict,
        record.rows_per_s_undisturbed,
    )
    counted = Counter(str(event["event"]) for event in events)
    solos = sum(
        int(event["processes"])
        for event in events
        if str(event["event"]).startswith("broker does not answer")
    )
    unsent = counted["hint not sent"] + len(re.findall(r'"event": "hint not sent"', record.api_log))
    return {
        "seed": record.seed,
        "seconds": round(record.seconds),
        "injections": len(record.blows),
        "by kind": dict(sorted(Counter(blow.kind.name for blow in record.blows).items())),
        "jobs": verdict.jobs,
        "rows accepted": verdict.accepted,
        "rows stored": verdict.stored,
        "rows with errors": verdict.errors,
        "rows lost": verdict.lost,
        "rows duplicated": verdict.duplicated,
        "laws broken": list(verdict.broken),
        "stale commits refused": counted["commit refused"],
        "chunks dropped as the lease was over": counted["lease lost"],
        "claims a chunk": round(record.claims_per_chunk, 2),
        "time to recover, s": _spread(record.recovery_s),
        "rows/s with faults": round(record.rows_per_s),
        "rows/s without": round(quiet) if quiet else None,
        "with over without": round(record.rows_per_s / quiet, 2) if quiet else None,
        "hints lost with the broker": record.hints_lost,
        "hints that it did not take": unsent,
        "jobs hinted for by a dispatcher": record.jobs_hinted,
        "processes started without a broker": solos,
        "API answers": dict(
            sorted(Counter(str(answer.status or "lost") for answer in record.answers).items())
        ),
        "longest answer, broker out, s": _longest(record, "broker"),
        "longest answer, database out, s": _longest(record, "database"),
        "cancel to stop, s": _spread(_cancel_latencies(events, record.cancels)),
        "SIGTERM to end, s": _spread(record.shutdowns_s),
    }


def document(found: Sequence[tuple[str, Figures]]) -> str:
    return json.dumps(dict(found), indent=1)


def told(found: Sequence[tuple[str, Figures]]) -> str:
    """One line a figure, one column a campaign."""
    names = list(dict.fromkeys(name for _, figures in found for name in figures))
    lines = [_line("", [title for title, _ in found])]
    for name in names:
        values = [figures.get(name) for _, figures in found]
        inner = [value if isinstance(value, dict) else {} for value in values]
        if any(inner):
            lines.append(f"{name}:")
            keys = sorted({key for value in inner for key in value})
            lines += [_line(f"  {key}", [value.get(key, "") for value in inner]) for key in keys]
        elif name != "laws broken":
            lines.append(_line(name, values))
    n, accepted, lost, doubled = (
        sum(figures[name] for _, figures in found)
        for name in ("injections", "rows accepted", "rows lost", "rows duplicated")
    )
    lines.append(
        f"{n:,} faults, {accepted:,} rows accepted: {lost:,} lost, {doubled:,} duplicated."
    )
    if n and not lost + doubled:
        lines.append(
            f"None in {n:,} means, with 95 % confidence, that a fault does harm at most {3 / n:.2%}"
            " of the times."
        )
    lines += [
        f"BROKEN ({title}): {words}" for title, figures in found for words in figures["laws broken"]
    ]
    return "\n".join(lines)


def _line(name: str, values: Iterable[object]) -> str:
    cells = [
        f"{value:,}" if isinstance(value, int | float) else str(value if value is not None else "-")
        for value in values
    ]
    return f"{name:<42}" + "".join(f"{cell:>16}" for cell in cells)


def _spread(seconds: Sequence[float]) -> Figures:
    """p50, p95 and max of some durations."""
    times = sorted(seconds)
    at = {"p50": 0.5, "p95": 0.95, "max": 1.0}
    picked = {
        name: round(times[min(len(times) - 1, int(len(times) * part))], 2)
        for name, part in at.items()
        if times
    }
    return {"n": len(times)} | picked


def _events(log: str) -> list[dict[str, Any]]:
    """The lines that are events; a process that was killed may leave a part of one."""
    found = []
    for line in log.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event:
            found.append(event)
    return found


def _longest(record: Record, touched: str) -> float | None:
    """Of the answers that came while this was out, and nothing else that an answer needs."""
    outages = [blow for blow in record.blows if blow.kind.touches == touched]
    others = [blow for blow in record.blows if blow.kind.touches in NEEDED - {touched}]
    hit = [
        answer.seconds
        for answer in record.answers
        if answer.status and _any_meets(outages, answer) and not _any_meets(others, answer)
    ]
    return round(max(hit), 2) if hit else None


def _any_meets(blows: Iterable[Blow], answer: Answer) -> bool:
    return any(
        blow.at <= answer.at + answer.seconds and answer.at <= blow.over + AFTER_S for blow in blows
    )


def _cancel_latencies(events: Iterable[dict[str, Any]], cancels: Sequence[Cancel]) -> list[float]:
    """Seconds from the answer to a cancel until the last process stopped that worked on the job."""
    stops: dict[str, list[float]] = {}
    for event in events:
        if event["event"] in STOPPED and "job_id" in event:
            stops.setdefault(event["job_id"], []).append(
                datetime.fromisoformat(event["timestamp"]).timestamp()
            )
    found = [
        [stop - one.at for stop in stops.get(one.job_id, []) if one.at <= stop <= one.until]
        for one in cancels
    ]
    return [max(later) for later in found if later]
