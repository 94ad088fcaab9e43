"""Score a million rows through the embedded stack, beside a bare ONNX Runtime loop over the same
rows.

    python -m tests.benchmarks.million [--rows 1000000] [--model FOLDER]

Prints rows/s of the job (from submission to success, upload and results apart), of the bare loop on
one thread, their ratio, and the peak resident memory of every process that took part. Without
--model it trains one on UCI Adult for a short while: the speed depends on the sizes of the
networks, not on how long they learned.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq

import nelbo
from nelbo.client import Client, find_url
from nelbo.encoding import encode
from nelbo.engine import Engine
from nelbo.settings import Settings
from nelbo.views import Job
from tests.deadline import until
from tests.processes import command, descendants

ADULT = Path(nelbo.__file__).with_name("data") / "adult-train.parquet"
QUICK = "epochs = 1\nmin_steps = 60\nmax_steps = 60\n"
PIECE = 50_000
LIMIT_MIB = 600
BIN = Path(sys.executable).parent


class Peaks(threading.Thread):
    """The highest resident memory of a process and of all that it starts, in MiB by what they run,
    sampled until stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.stopped, self.found = (
            pid,
            threading.Event(),
            defaultdict[tuple[int, str], float](float),
        )

    def run(self) -> None:
        while not self.stopped.wait(0.5):
            for pid in {self.pid, *descendants(self.pid)}:
                self._look(pid)

    def _look(self, pid: int) -> None:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return
        peak = next(
            (
                int(line.split()[1]) / 1024
                for line in status.splitlines()
                if line.startswith("VmHWM")
            ),
            0.0,
        )
        name = " ".join(command(pid).split()[1:7]) or "?"
        self.found[pid, name] = max(self.found[pid, name], peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=" ".join(__doc__.partition("\n\n")[0].split()))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--model", type=Path, help="folder of an artifact")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nelbo-million-") as folder:
        run(Path(folder), arguments.model or quick_model(Path(folder)), arguments.rows)


def quick_model(folder: Path) -> Path:
    (folder / "quick.toml").write_text(QUICK)
    options = ["--name=adult", f"--out={folder / 'adult'}", f"--config={folder / 'quick.toml'}"]
    subprocess.run([sys.executable, "-P", "-m", "training.cli", str(ADULT), *options], check=True)
    return folder / "adult"


def run(folder: Path, model: Path, rows: int) -> None:
    engine = Engine.load(model)
    print(f"making {rows:,} rows ...", flush=True)
    table = write_rows(engine, folder / "rows.parquet", rows)
    home = folder / "home"
    up = subprocess.Popen(
        [BIN / "nelbo", "up", "--port", "0"],
        env=os.environ | {"NELBO_HOME": str(home), "NELBO_URL": ""},
        stderr=subprocess.DEVNULL,
    )
    peaks = Peaks(up.pid)
    peaks.start()
    try:
        seconds = job_seconds(home, model, table, rows)
    finally:
        peaks.stopped.set()
        peaks.join()
        up.terminate()
        up.wait()
    report(rows, seconds, bare_seconds(engine, table), peaks)


def write_rows(engine: Engine, path: Path, rows: int) -> Path:
    first = engine.generate(1, 0, 1).batch
    with pq.ParquetWriter(path, first.schema) as writer:
        for start in range(0, rows, PIECE):
            writer.write_batch(engine.generate(1, start, min(PIECE, rows - start)).batch)
    return path


def job_seconds(home: Path, model: Path, table: Path, rows: int) -> float:
    with connect(home) as client:
        client.models.push(model, name="adult")
        file = client.files.wait(client.files.upload(table))
        began = time.monotonic()
        job = client.jobs.score("adult", file)
        job.wait(progress=show, timeout_s=3_600)
        seconds = time.monotonic() - began
        stored = sum(batch.num_rows for batch in job.results().batches())
        print(f"\r{stored:,} results read back, {len(list(job.errors())):,} errors")
        assert stored == rows, f"{stored} results of {rows} rows"
    return seconds


def show(job: Job) -> None:
    print(f"\r{job.progress.rows_done:,} of {job.progress.rows:,}", end="", flush=True)


def connect(home: Path) -> Client:
    settings = Settings(home=home, url="")
    return Client(
        until(lambda: find_url(settings), "the service", deadline_s=120), settings=settings
    )


def bare_seconds(engine: Engine, table: Path) -> float:
    """Seconds of ONNX Runtime alone, on one thread, over rows that are read and encoded already."""
    seconds = 0.0
    for batch in pq.ParquetFile(table).iter_batches(PIECE):
        rows = encode(batch, engine.schema)
        began = time.monotonic()
        engine.costs(rows.numbers, rows.codes)
        seconds += time.monotonic() - began
    return seconds


def report(rows: int, job: float, bare: float, peaks: Peaks) -> None:
    print(
        f"job          {rows / job:10,.0f} rows/s   {job:7.1f} s   {Settings().worker_processes}"
        " processes"
    )
    print(f"bare loop    {rows / bare:10,.0f} rows/s   {bare:7.1f} s   1 thread")
    print(f"job / bare   {bare / job:10.2f}")
    print("peak resident memory, MiB")
    for (pid, name), peak in sorted(peaks.found.items(), key=lambda item: -item[1])[:12]:
        print(f"  {peak:7.0f}   {name} ({pid})")
    highest = max(peaks.found.values())
    print(
        f"highest {highest:.0f} MiB, limit {LIMIT_MIB} MiB:"
        f" {'kept' if highest <= LIMIT_MIB else 'BROKEN'}"
    )


if __name__ == "__main__":
    main()
