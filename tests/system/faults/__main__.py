"""`python -m tests.system.faults`: many faults on real workers, and a table of what came of it.

For each database a campaign of all kinds with short leases, then kills alone with the default
settings, one after the other: what a user would wait. The status is 1 where anything is lost,
doubled or not as in an undisturbed run.
"""

import argparse
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from nelbo import logs
from nelbo.settings import Settings, variable
from tests.system.faults import figures
from tests.system.faults.campaign import Record, run, weighted
from tests.system.faults.kinds import KILLS, KINDS

JSON = Path("build/faults.json")
DATABASES = ("sqlite", "postgresql")
EACH = 20
KILLS_ALONE = 20
DEFAULT_TIMES = {
    variable(name): str(Settings.model_fields[name].default)
    for name in ("lease_s", "renew_s", "sweep_s")
}
KILLED_APART_S = (3.0, 9.0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.system.faults", description=__doc__)
    parser.add_argument(
        "--each",
        type=int,
        default=EACH,
        help="faults of each kind, at least (default: %(default)s)",
    )
    parser.add_argument(
        "--kills",
        type=int,
        default=KILLS_ALONE,
        help="kills with default settings, a database (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=1,
        help="decides which faults strike when (default: %(default)s)",
    )
    parser.add_argument(
        "--database", choices=[*DATABASES, "both"], default="both", help="default: %(default)s"
    )
    parser.add_argument(
        "--kind", action="append", help="kinds whose name contains this, and no others"
    )
    parser.add_argument(
        "--json", type=Path, default=JSON, help="file for the figures (default: %(default)s)"
    )
    parser.add_argument(
        "--keep", action="store_true", help="the databases and logs, also where all holds"
    )
    options = parser.parse_args()
    logs.configure("WARNING")
    chosen = [kind for kind in KINDS if any(word in kind.name for word in options.kind or [""])]
    databases = DATABASES if options.database == "both" else (options.database,)
    rounds = rounds_of(options.each, databases)
    given: dict[str, Any] = {"keep": options.keep, "seed": options.seed}
    records: list[Record] = []
    slow: dict[str, Any] = {
        "kinds": KILLS,
        "times": DEFAULT_TIMES,
        "pause_s": KILLED_APART_S,
        "at_once": 1,
    }
    for database in databases:
        if rounds:
            records.append(
                campaign(database, rounds * len(weighted(chosen, database)), kinds=chosen, **given)
            )
        if options.kills:
            records.append(campaign(f"{database}, default", options.kills, **given, **slow))
    found = [(record.title, figures.of(record)) for record in records]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(figures.document(found))
    print(figures.told(found))
    sys.exit(not all(record.verdict.holds for record in records))


def rounds_of(each: int, databases: Collection[str]) -> int:
    """Rounds of all kinds on each database, for `each` faults of a kind in all. A kind that one
    database alone knows is twice in each round."""
    return math.ceil(each / len(databases))


def campaign(title: str, injections: int, keep: bool, **options: Any) -> Record:
    """In a folder of its own, which stays where something does not hold, or if it is to be kept."""
    folder, begun = Path(tempfile.mkdtemp(prefix="nelbo-faults-")), time.monotonic()

    def tell(line: str) -> None:
        print(f"{title} {time.monotonic() - begun:.0f} s: {line}", file=sys.stderr, flush=True)

    try:
        record = run(title, folder, injections=injections, tell=tell, **options)
    except BaseException:
        tell(f"broken off; what there was is in {folder}")
        raise
    if record.verdict.holds and not keep:
        shutil.rmtree(folder)
    else:
        tell(f"logs and database are in {folder}: {record.verdict}")
    return record


if __name__ == "__main__":
    main()
