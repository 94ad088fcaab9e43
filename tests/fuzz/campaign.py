"""A reader's share of a run: processes one after the other, until all inputs are done, whatever
ends one of them."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.child import ROOT, TOO_MUCH_MEMORY, Report, in_flight, save

STUCK_S = 300
"""Seconds of the clock for one input, which a process waits for that computes nothing."""
BATCH = 5_000
"""Number of inputs for one process: Arrow keeps some kilobytes for each."""
MOST_DEATHS = 20
"""Number of processes that may die before the rest of the inputs is given up."""


def fuzz(reader: str, inputs: int, seed: int, folder: Path, guided: bool) -> Report:
    """Give a reader that many inputs. `folder` is empty; afterwards it holds `corpus` and
    `found`."""
    for name in ("corpus", "found", "work"):
        (folder / name).mkdir(parents=True)
    outcome = Report()
    deaths = 0
    for number in itertools.count():
        if outcome.done == inputs or deaths == MOST_DEATHS:
            break
        code = _run(reader, min(BATCH, inputs - outcome.done), seed + number, folder, guided)
        done, content = in_flight(folder)
        outcome.add(Report(**json.loads((folder / "report.json").read_text()) | {"done": done}))
        if code == 0:
            continue
        deaths += 1
        kind = _death(code)
        outcome.count(kind)
        print(f"{reader}: {kind}, {save(folder, kind, content)}", flush=True)
        outcome.done += code != TOO_MUCH_MEMORY  # a process that ends itself has counted the input
        _forget(folder / "corpus", content)
    if outcome.done < inputs:
        outcome.count(f"ended after {deaths} processes died")
    return outcome


def _run(reader: str, inputs: int, seed: int, folder: Path, guided: bool) -> int:
    """The exit code of a process, negative for a signal. One that does nothing for too long is
    killed."""
    (folder / "flight").unlink(missing_ok=True)
    (folder / "report.json").write_text("{}")
    shutil.rmtree(folder / "work")
    (folder / "work").mkdir()
    command = [
        sys.executable,
        "-P",
        "-m",
        "tests.fuzz.child",
        reader,
        str(folder),
        f"--inputs={inputs}",
        f"--seed={seed}",
    ]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONHASHSEED": "0"}
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [*command, *["--guided"] * guided], env=environment, stdout=log, stderr=log
        )
    try:
        return _ended(process, folder)
    finally:
        process.kill()
        process.wait()


def _ended(process: "subprocess.Popen[bytes]", folder: Path) -> int:
    done, since = -1, time.monotonic()
    while (code := process.poll()) is None:
        time.sleep(0.05)
        now = (
            in_flight(folder)[0]
            if (folder / "flight").exists() and (folder / "flight").stat().st_size
            else -1
        )
        if now != done:
            done, since = now, time.monotonic()
        if time.monotonic() > since + STUCK_S:
            return -signal.SIGALRM
    if done < 0 and not (folder / "flight").exists():
        raise RuntimeError(
            f"the process did not begin: {(folder / 'log').read_text(errors='replace')[-2_000:]}"
        )
    return code


def _death(code: int) -> str:
    if code == TOO_MUCH_MEMORY:
        return "took too much memory"
    if code >= 0:
        return f"ended with exit code {code}"
    names = {signal.SIGPROF: "took too much processor time", signal.SIGALRM: "stood still"}
    return names.get(signal.Signals(-code), f"ended by {signal.Signals(-code).name}")


def _forget(corpus: Path, content: bytes) -> None:
    """The input that ended a process does not end the next one as well."""
    for path in corpus.iterdir():
        if path.read_bytes() == content:
            path.unlink()
