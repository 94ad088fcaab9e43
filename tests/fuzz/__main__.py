"""`make fuzz`: give the readers inputs, show what came of them as a table, and fail where there is
a fault."""

import argparse
import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.campaign import fuzz
from tests.fuzz.child import ROOT, Report
from tests.fuzz.measure import branches
from tests.fuzz.readers import READERS, SHARED

LEAST_SHARE = 0.8
"""Share of the branches that a run must reach."""
OWN = tuple(dict.fromkeys(module for reader in READERS.values() for module in reader.modules))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--inputs", type=int, default=100_000, help="number of inputs for all readers together"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--reader", choices=READERS, help="the only reader to fuzz; it gets all inputs"
    )
    parser.add_argument(
        "--folder", type=Path, help="new folder for what is kept; without it build/fuzz is replaced"
    )
    options = parser.parse_args()

    missing = [name for name in ("atheris", "coverage") if importlib.util.find_spec(name) is None]
    if missing:
        parser.error(
            f"{' and '.join(missing)} is not installed; `make fuzz` installs what is needed"
        )
    folder: Path = options.folder or ROOT / "build" / "fuzz"
    if options.folder and folder.exists():
        parser.error(f"{folder} exists; name a new folder")
    shutil.rmtree(folder, ignore_errors=True)

    begin = time.monotonic()
    shares = (
        {options.reader: 1.0}
        if options.reader
        else {name: reader.share for name, reader in READERS.items()}
    )
    outcomes = {
        name: fuzz(name, round(options.inputs * share), options.seed, folder / name, guided=True)
        for name, share in shares.items()
    }
    measuring = [sys.executable, "-P", "-m", "tests.fuzz.measure", str(folder)]
    subprocess.run(
        measuring, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, check=True
    )
    _show(outcomes, folder / "coverage.json")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"\n{sum(outcome.done for outcome in outcomes.values()):,} inputs in"
        f" {(time.monotonic() - begin) / 60:.0f} minutes,"
        f" {(used.ru_utime + used.ru_stime) / 60:.0f} of them on the processor"
    )
    return _verdict(
        outcomes, branches(folder / "coverage.json", (*OWN, *SHARED)).share, options.reader is None
    )


def _show(outcomes: dict[str, Report], report: Path) -> None:
    print(
        "\n| reader | inputs | read | refused | branches of its modules | peak memory | slowest |"
        " faults |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, outcome in outcomes.items():
        own = branches(report, READERS[name].modules)
        print(
            f"| {name} | {outcome.done:,} | {outcome.answered:,} | {outcome.refused:,}"
            f" | {own.taken} of {own.all}, {own.share:.0%} | {outcome.peak_mib} MiB |"
            f" {outcome.slowest_s:.1f} s"
            f" | {sum(outcome.faults.values())} |"
        )
    for name, modules in (("modules of all tables", SHARED), ("all modules", (*OWN, *SHARED))):
        shared = branches(report, modules)
        print(f"| {name} | | | | {shared.taken} of {shared.all}, {shared.share:.0%} | | | |")
    print()
    for module in (*OWN, *SHARED):
        print(f"{module}: {branches(report, (module,)).share:.0%}")


def _verdict(outcomes: dict[str, Report], share: float, all_readers: bool) -> int:
    faults = [
        f"{name}: {kind}, {count:,} inputs"
        for name, one in outcomes.items()
        for kind, count in one.faults.items()
    ]
    if all_readers and share < LEAST_SHARE:
        faults.append(f"{share:.0%} of the branches were reached; {LEAST_SHARE:.0%} are expected")
    faults += [
        f"{name}: {one.peak_mib} MiB"
        for name, one in outcomes.items()
        if one.peak_mib > READERS[name].peak_mib
    ]
    for fault in faults:
        print(f"FAULT {fault}")
    print(
        "0 faults"
        if not faults
        else "the inputs are in the folders `found`; mend, then keep them in tests/fuzz/found"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
