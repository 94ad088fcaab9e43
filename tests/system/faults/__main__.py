"""`python -m tests.system.faults`: many faults on real workers, and a table of what came of it.

The status is 1 where anything is lost, doubled or not as in an undisturbed run.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.system.faults.campaign import Outcome, run

DATABASES = ("sqlite", "postgresql")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.system.faults", description=__doc__)
    parser.add_argument("--injections", type=int, default=500, help="faults in all, over the databases (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides which faults strike when (default: %(default)s)")
    parser.add_argument("--database", choices=[*DATABASES, "both"], default="both", help="default: %(default)s")
    options = parser.parse_args()
    databases = DATABASES if options.database == "both" else (options.database,)
    outcomes = []
    for database in databases:
        with tempfile.TemporaryDirectory(prefix="nelbo-faults-") as folder:
            outcome = run(database, Path(folder), injections=options.injections // len(databases), seed=options.seed)
            if not outcome.verdict.holds:
                print("log of the workers:", shutil.copy(Path(folder) / "worker.log", tempfile.mkdtemp(prefix="nelbo-faults-")))
        print("\n".join(told(outcome)), flush=True)
        outcomes.append(outcome)
    sys.exit(not all(outcome.verdict.holds for outcome in outcomes))


def told(outcome: Outcome) -> list[str]:
    """The figures of a campaign, line by line."""
    verdict, times = outcome.verdict, sorted(outcome.recovery_s)
    lines = [f"{outcome.database}: {len(outcome.blows)} injections in {outcome.seconds:.0f} s"]
    lines += [f"  {count:5}  {kind}" for kind, count in sorted(outcome.by_kind().items())]
    lines += [
        f"  jobs {verdict.jobs}, rows accepted {verdict.accepted:,}, stored {verdict.stored:,}, errors {verdict.errors:,}",
        f"  lost {verdict.lost:,}, duplicated {verdict.duplicated:,}",
        f"  stale commits refused {outcome.refused}, chunks dropped by workers whose lease was over {outcome.given_up}",
        f"  claims per chunk {outcome.claims_per_chunk:.2f}",
    ]
    if times:
        p50, p95 = (times[min(len(times) - 1, int(len(times) * part))] for part in (0.5, 0.95))
        lines.append(f"  time to recover p50 {p50:.1f} s, p95 {p95:.1f} s, max {times[-1]:.1f} s (n = {len(times)})")
    share = outcome.rows_per_s / outcome.rows_per_s_undisturbed
    lines.append(f"  rows/s with faults {outcome.rows_per_s:,.0f}, without {outcome.rows_per_s_undisturbed:,.0f}: {share:.2f}")
    return lines + [f"  BROKEN: {words}" for words in verdict.broken]


if __name__ == "__main__":
    main()
