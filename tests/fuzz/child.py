"""The process in which one reader is fuzzed: confined, watched at each input, and expendable.

`python -m tests.fuzz.child READER FOLDER --inputs N --seed S [--guided]`. In the folder: `corpus`,
the inputs that showed something new; `found`, those that a fault came of; `work`, where the reader
writes; `flight`, the input that is being read; `report.json`. With --guided, atheris keeps what
reaches new code and changes that further; without, only seeds are changed.
"""

import argparse
import contextlib
import hashlib
import json
import mmap
import os
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from tests.fuzz.mutations import MOST_BYTES

if TYPE_CHECKING:
    from tests.fuzz.readers import Reader

ROOT = Path(__file__).parents[2]
FOUND = Path(__file__).parent / "found"
"""Inputs of faults that were mended, in a folder for each reader."""
MEMORY_MIB = 8_192
"""Address space of a process, four times NELBO_READ_MEMORY_MIB: one that reads thousands of inputs
keeps some for each. What counts is the memory that it holds, which is far less
(Reader.peak_mib)."""
TOO_MUCH_MEMORY = 3
"""Exit code of a process that held more memory than its reader may."""
PR_SET_PDEATHSIG = 1
_REPORT_EVERY = 200
_HEADER = struct.Struct("<QQ")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.remove": 1,
    "os.rename": 2,
    "os.link": 2,
    "os.truncate": 1,
}
"""Events of Python's audit hook, with the number of paths that change. The folders that those are
seen from come last."""


@dataclass
class Report:
    """What came of the inputs so far; `faults` by their kind."""

    done: int = 0
    answered: int = 0
    refused: int = 0
    peak_mib: int = 0
    slowest_s: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)

    def count(self, kind: str, times: int = 1) -> None:
        self.faults[kind] = self.faults.get(kind, 0) + times

    def add(self, other: "Report") -> None:
        self.done += other.done
        self.answered += other.answered
        self.refused += other.refused
        self.peak_mib = max(self.peak_mib, other.peak_mib)
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        for kind, times in other.faults.items():
            self.count(kind, times)


class Flight:
    """The number of inputs that are done and the one that is being read, in a file that outlives
    the process."""

    def __init__(self, path: Path, size: int) -> None:
        path.touch()
        os.truncate(path, _HEADER.size + size)
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def begin(self, done: int, content: bytes) -> None:
        self._memory[: _HEADER.size + len(content)] = _HEADER.pack(done, len(content)) + content


def in_flight(folder: Path) -> tuple[int, bytes]:
    """The number of inputs that a process had done, and the input that it read last."""
    memory = (folder / "flight").read_bytes()
    done, size = _HEADER.unpack_from(memory)
    return done, memory[_HEADER.size : _HEADER.size + size]


def save(folder: Path, kind: str, content: bytes) -> Path:
    """Keep an input that a fault came of, named by the fault and its content."""
    words = "".join(sign if sign.isalnum() else "-" for sign in kind)[:80].strip("-")
    path = folder / "found" / f"{words}-{hashlib.sha256(content).hexdigest()[:8]}"
    path.write_bytes(content)
    return path


class Watch:
    """Reads one input after the other and records what came of each."""

    def __init__(self, reader: "Reader", folder: Path, inputs: int, status: int) -> None:
        """`status` is /proc/self/status, which a confined process cannot open."""
        self._reader, self._folder, self._inputs, self._status = reader, folder, inputs, status
        self._work = folder / "work"
        self._out = self._work / "out"
        self._flight = Flight(folder / "flight", MOST_BYTES)
        self._report = Report()
        self._watching = False
        sys.addaudithook(self._see)

    def one(self, content: bytes) -> None:
        """Read an input. The process ends with the last one, or with more memory than it may
        have."""
        self._flight.begin(self._report.done, content)
        self._out.mkdir()
        begin = time.process_time()
        problem = self._problem(content)
        self._report.slowest_s = max(self._report.slowest_s, time.process_time() - begin)
        if problem is None:
            self._report.answered += 1
        elif self._is_refusal(problem):
            self._report.refused += 1
        else:
            self._fault(problem, content)
        self._settle(content)

    def _problem(self, content: bytes) -> BaseException | None:
        signal.setitimer(signal.ITIMER_PROF, self._reader.deadline_s)
        self._watching = True
        try:
            self._reader.read(content, self._out)
        except BaseException as problem:  # whatever it is, of Rust's panics too
            return problem
        finally:
            self._watching = False
            signal.setitimer(signal.ITIMER_PROF, 0)
        return None

    def _is_refusal(self, problem: BaseException) -> bool:
        from nelbo.errors import NelboError

        own = isinstance(problem, NelboError) and problem.code != NelboError.code
        return own or (isinstance(problem, MemoryError) and self._reader.may_run_out)

    def _settle(self, content: bytes) -> None:
        strange = [name for name in os.listdir(self._work) if name != "out"]
        if strange:
            self._count("wrote beside its folder", content)
        for name in ("out", *strange):
            shutil.rmtree(self._work / name, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                (self._work / name).unlink()
        report = self._report
        report.done += 1
        report.peak_mib = self._peak_mib()
        too_much = report.peak_mib > self._reader.peak_mib
        ends = too_much or report.done == self._inputs
        if ends or report.done % _REPORT_EVERY == 0:
            self._write()
        if ends:
            self._flight.begin(report.done, content)
            os._exit(
                TOO_MUCH_MEMORY if too_much else 0
            )  # atheris ends in no other way that keeps its exit code

    def _peak_mib(self) -> int:
        """The most memory that this process has held. getrusage would count what the process that
        started it has held."""
        status = os.pread(self._status, 4_096, 0).partition(b"VmHWM:")[2]
        return int(status.split(maxsplit=1)[0]) >> 10

    def _fault(self, problem: BaseException, content: bytes) -> None:
        frames = [
            frame
            for frame in traceback.extract_tb(problem.__traceback__)
            if frame.filename != __file__
        ]
        product, tests = (
            [one for one in frames if one.filename.startswith(f"{ROOT}/{part}/")]
            for part in ("nelbo", "tests")
        )
        last = (product or tests or frames)[-1]
        file = last.filename.removeprefix(f"{ROOT}/")
        self._count(f"{type(problem).__name__} at {file}:{last.lineno}", content, str(problem))

    def _count(self, kind: str, content: bytes, message: str = "") -> None:
        self._report.count(kind)
        if self._report.faults[kind] == 1:
            path = save(self._folder, kind, content)
            print(f"{kind}: {message[:300]!r}, {path}", flush=True)
        self._write()

    def _write(self) -> None:
        temporary = self._folder / "report.new"
        temporary.write_text(json.dumps(asdict(self._report)))
        temporary.replace(self._folder / "report.json")

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's audit hook: a path that the reader would change outside of its folder is
        refused, which is a fault."""
        if not self._watching:
            return
        paths: list[tuple[Any, int]] = []
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES:
            paths = [(arguments[0], -1)]
        elif event in _PATHS:
            count = _PATHS[event]
            folders = arguments[-count:] if event != "os.truncate" else (-1,)
            paths = list(zip(arguments[:count], folders, strict=True))
        for path, folder in paths:
            if isinstance(path, str | bytes) and not self._is_inside(os.fsdecode(path), folder):
                raise PermissionError(
                    f"{event} of {path!r}, which is outside of the reader's folder"
                )

    def _is_inside(self, path: str, folder: int) -> bool:
        """Whether a path lies in the reader's folder, seen from an open folder, or with -1 from
        nowhere."""
        base = "/" if folder < 0 else os.readlink(f"/proc/self/fd/{folder}")
        return Path(os.path.realpath(os.path.join(base, path))).is_relative_to(self._out)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("reader")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--inputs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--guided", action="store_true")
    options = parser.parse_args()
    folder = options.folder.resolve()

    reader = _loaded(options.reader, options.guided)
    seeds = reader.seeds()
    contents = _contents(folder / "corpus", seeds, options.reader)
    status = os.open("/proc/self/status", os.O_RDONLY)
    _confine(folder)
    watch = Watch(reader, folder, options.inputs, status)
    if options.guided:
        _guided(watch.one, reader.mutate, seeds, folder, options.seed)
    else:
        _unguided(watch.one, reader.mutate, contents, Random(options.seed))


def _loaded(name: str, guided: bool) -> "Reader":
    if guided:
        import atheris

        with atheris.instrument_imports(include=["nelbo"]):
            from tests.fuzz.readers import READERS
    else:
        from tests.fuzz.readers import READERS
    from tests.fuzz.faulty import FAULTY

    return (READERS | FAULTY)[name]


def _contents(corpus: Path, seeds: list[bytes], name: str) -> list[bytes]:
    """What was kept by an earlier process; the first one writes the seeds."""
    if not any(corpus.iterdir()):
        faulty = [path.read_bytes() for path in sorted((FOUND / name).glob("*"))]
        for number, content in enumerate((*seeds, *faulty)):
            if len(content) <= MOST_BYTES:
                (corpus / f"seed-{number:03}").write_bytes(content)
    return [path.read_bytes() for path in sorted(corpus.iterdir())]


def _confine(folder: Path) -> None:
    import pyarrow as pa

    from nelbo.confinement import CODE, LIBC, confine

    folders = [Path(path) for path in (*sys.path, str(ROOT)) if path and Path(path).exists()]
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a run that is stopped leaves no process behind
    confine(memory_mib=MEMORY_MIB, read=[*CODE, *folders], write=[folder])
    pa.set_cpu_count(1)
    tempfile.tempdir = str(folder / "work" / "out")
    warnings.simplefilter("error")


def _unguided(
    one: Callable[[bytes], None],
    mutate: Callable[[Random, bytes], bytes],
    contents: list[bytes],
    rng: Random,
) -> None:
    for content in contents:
        one(content)
    while True:
        content = rng.choice(contents)
        for _ in range(rng.choice((1, 1, 2, 3))):
            content = mutate(rng, content)
        one(content)


def _guided(
    one: Callable[[bytes], None],
    mutate: Callable[[Random, bytes], bytes],
    seeds: list[bytes],
    folder: Path,
    seed: int,
) -> None:
    import atheris

    def mutated(content: bytes, size: int, seed: int) -> bytes:
        try:
            return _mutated(Random(seed), content, size)
        except BaseException:  # atheris would wait for ever
            traceback.print_exc()
            os._exit(1)

    def _mutated(rng: Random, content: bytes, size: int) -> bytes:
        choice = rng.random()
        if choice < 0.15:  # atheris puts in what the code has compared with
            changed: bytes = atheris.Mutate(content, size)
            return changed
        return mutate(rng, rng.choice(seeds) if choice < 0.4 else content)[:size]

    signals = ("segv", "bus", "abrt", "ill", "fpe", "int", "term", "xfsz", "usr1", "usr2")
    options = [
        f"-handle_{name}=0" for name in signals
    ]  # a signal ends the process, and whoever started it sees which
    options += [
        "-runs=-1",
        "-timeout=86400",
        "-rss_limit_mb=0",
        "-len_control=0",
        "-reload=0",
        "-verbosity=0",
    ]
    options += [
        f"-seed={seed}",
        f"-max_len={MOST_BYTES}",
        f"-artifact_prefix={folder}/",
        str(folder / "corpus"),
    ]
    atheris.Setup([sys.argv[0], *options], one, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
