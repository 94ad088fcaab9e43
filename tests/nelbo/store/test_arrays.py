"""Arrays in PostgreSQL's binary form: what goes in comes out, bit by bit."""

import numpy as np
import psycopg
import pytest

from nelbo.store import arrays
from tests.servers import Postgres

FLOATS = np.array([0.0, -0.0, 0.1, -1e300, 5e-324, np.finfo(float).max])
INTS = np.array([0, -1, 2**53, 2**63 - 1, -(2**63)])


@pytest.mark.parametrize("values", [FLOATS, INTS, FLOATS[:1], FLOATS[:0], INTS[:0]])
def test_the_server_gives_back_what_it_was_sent(
    postgresql: Postgres, values: arrays.Numbers
) -> None:
    arrays.register_adapters()
    with psycopg.connect(postgresql.url("postgres")) as connection:
        found = connection.execute(
            "SELECT array_send(%s), %s", [arrays.wire(values), arrays.wire(values)]
        ).fetchone()
    assert found is not None
    binary, as_list = found
    back = arrays.unwire(binary)
    assert back.dtype == values.dtype
    assert back.tobytes() == values.tobytes()
    assert as_list == values.tolist(), "the server takes it for an array like any other"
