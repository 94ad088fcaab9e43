"""`python -P -m nelbo.store`: bring the database that the settings name to the newest schema. Safe to run again."""

import sys

from nelbo.errors import NelboError
from nelbo.settings import read_settings
from nelbo.store.session import connect


def main() -> None:
    try:
        database = connect(read_settings().database)
        database.migrate()
        database.check()
    except NelboError as problem:
        sys.exit(problem.message)


if __name__ == "__main__":
    main()
