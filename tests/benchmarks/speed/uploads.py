"""The upload of a large CSV file, beside Arrow reading it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from tests.benchmarks.speed.bench import Bench
from tests.benchmarks.speed.service import Service, started
from tests.benchmarks.speed.turns import Goal, Line, Run, in_turns, line, timed
from tests.processes import forget_peak, peak_mib

MB = 1_000_000


def uploads(bench: Bench) -> Iterator[Line]:
    path = write_csv(bench, bench.folder / "upload.csv")
    mb = path.stat().st_size / MB
    with started(bench.folder / "upload") as service:
        ours, theirs = in_turns(
            bench.sizes.times,
            lambda: upload(service, path, mb),
            lambda: timed(
                lambda: read_with_arrow(path),
                lambda seconds: {"upload": mb / seconds, "reading": mb / seconds, "memory": 0.0},
            ),
        )
    of = f"CSV file of {mb:,.0f} MB"
    beside = "`pyarrow.csv` on one thread"
    yield line(f"{of}: upload", "MB/s", "upload", ours, theirs, beside, Goal(0.5))
    yield line(f"{of}: from upload to ready", "MB/s", "reading", ours, theirs, beside, Goal(0.5))
    memory = Goal(greatest=300.0, of_ratio=False)
    yield line(f"{of}: peak memory of the API", "MiB", "memory", ours, goal=memory)


def write_csv(bench: Bench, path: Path) -> Path:
    """Generated rows, again and again."""
    batch = bench.engine.generate(1, 0, 2_000 if bench.sizes.trial else 50_000).batch
    with path.open("wb") as file:
        header = True
        while file.tell() < bench.sizes.mb * MB:
            pa.csv.write_csv(batch, file, pa.csv.WriteOptions(include_header=header))
            header = False
    return path


def upload(service: Service, path: Path, mb: float) -> Run:
    api = service.api_pid()
    forget_peak(api)
    sent_at = [0.0]

    def work() -> None:
        file = service.client.files.upload(path)
        sent_at[0] = time.perf_counter()
        service.client.files.wait(file)

    began = time.perf_counter()
    run = service.measured(work, lambda seconds: {"all": seconds})
    sending = sent_at[0] - began
    figures = {
        "upload": mb / sending,
        "reading": mb / (run.figures["all"] - sending),
        "memory": peak_mib(api),
    }
    return Run(figures, run.cpu_s)


def read_with_arrow(path: Path) -> None:
    options = pa.csv.ReadOptions(use_threads=False)
    with pa.csv.open_csv(path, read_options=options) as reader:
        for _ in reader:
            pass
