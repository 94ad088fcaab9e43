"""Datetimes are cut into fields without loss: masses sum to one, values come back, and rhythms are
found in what is drawn."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from nelbo.encoding import decode
from nelbo.engine import Engine
from nelbo.schema import Column, Schema
from training.config import Config
from training.data import Rows, split_rows
from training.export import export_model
from training.fields import DAY, MONDAY, fields
from training.fit import fit_rows
from training.likelihoods import Likelihoods

Floats = NDArray[np.float64]
HOUR = DAY / 24
DAYS: Floats = np.arange(-1_000.0, 1_000.0) * DAY
HOURS: Floats = np.arange(-10_000.0, 10_000.0) * HOUR


def column(step: float) -> Column:
    return Column(name="t", kind="datetime", step=int(step))


@pytest.mark.parametrize(("step", "values", "names"), [
    (DAY, DAYS, ["week", "weekday"]),
    (HOUR, HOURS, ["week", "weekday", "time of day"]),
    (1, np.array([np.nan, *HOURS + 1]), ["week", "weekday", "time of day"]),
    (DAY, np.repeat(DAYS[:100], 30), [""]),
    (7 * DAY, DAYS * 7, [""]),
])  # fmt: skip
def test_a_datetime_whose_values_seldom_come_back_is_cut(
    step: float, values: Floats, names: list[str]
) -> None:
    cut = fields(column(step), values)
    assert [field.name for field in cut] == names
    np.testing.assert_array_equal(
        sum(field.unit * field.of(values) for field in cut) + cut[0].origin, values
    )


def test_weeks_begin_on_mondays() -> None:
    monday = np.datetime64("2024-01-01T00:00:00", "us").astype(np.float64)
    week, weekday, _ = fields(column(HOUR), HOURS)
    assert weekday.of(monday + DAY * np.arange(8)).tolist() == [0, 1, 2, 3, 4, 5, 6, 0]
    assert np.diff(week.of(monday + np.array([-1, 0, 7 * DAY - 1, 7 * DAY]))).tolist() == [1, 0, 1]


def test_the_masses_of_all_days_and_of_a_missing_one_sum_to_one() -> None:
    """Working days are known, others are `other`; the weeks' tails reach a hundred times as far as
    the rows."""
    working = DAYS[(DAYS - MONDAY) / DAY % 7 < 5]
    likelihoods = Likelihoods.fit(
        Schema(columns=(column(DAY),)),
        np.array([*working, np.nan])[:, None],
        np.zeros((len(working) + 1, 0), np.int64),
    )
    every = np.array([*np.arange(-200_000, 200_000) * DAY, np.nan])
    codes, density = likelihoods.encode(
        torch.from_numpy(every[:, None]), torch.zeros(len(every), 0, dtype=torch.int64)
    )
    logits = (likelihoods.masses.even + torch.randn(len(likelihoods.masses.even))).split(
        likelihoods.sizes
    )
    log_mass = likelihoods.masses.log_prob([one.expand(len(every), -1) for one in logits], codes)
    assert (log_mass + density).sum(1).exp().sum() == pytest.approx(1, abs=1e-3)


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Rows of three years on working days from 9 to 17 o'clock, each tenth without its time; `late`
    is the afternoon."""
    rng = np.random.default_rng(0)
    day = rng.integers(0, 156, 4_000) * 7 + rng.integers(0, 5, 4_000)
    hour = rng.uniform(9, 17, 4_000)
    t = np.where(
        rng.random(4_000) < 0.1, np.nan, MONDAY + np.floor((day + hour / 24) * DAY / 60e6) * 60e6
    )
    rows = Rows(t[:, None], (hour >= 13).astype(np.int64)[:, None])
    schema = Schema(
        columns=(column(60e6), Column(name="late", kind="boolean", categories=("false", "true")))
    )
    config = Config(min_steps=400, max_steps=400)
    vae, _ = fit_rows(schema, rows, split_rows(4_000, 0.1, 0), config, 0, lambda *_: None)
    folder = tmp_path_factory.mktemp("office")
    export_model(folder, vae, "office", schema, config, 0, rows)
    return Engine.load(folder)


def test_what_is_drawn_keeps_the_rhythms_of_the_table(office: Engine) -> None:
    made = office.generate(0, 0, 4_000).batch
    assert made["t"].null_count / 4_000 == pytest.approx(0.1, abs=0.03)
    timed = pa.Table.from_batches([made]).to_pandas().dropna()
    assert timed.t.dt.dayofweek.max() <= 4
    assert timed.t.dt.hour.between(9, 16).all()
    assert ((timed.t.dt.hour >= 13) == timed.late).mean() > 0.95


def test_a_row_out_of_rhythm_is_less_likely(office: Engine) -> None:
    """A Wednesday at 10, the same at 3, and the Sunday after."""
    wednesday = MONDAY + 7 * DAY * 70 + 2 * DAY + 10 * HOUR
    numbers = np.array([[wednesday], [wednesday - 7 * HOUR], [wednesday + 4 * DAY]])
    costs = office.costs(numbers, np.zeros((3, 1), dtype=np.int64))
    assert (costs.terms[1:, 0] > costs.terms[0, 0] + 3).all()
    assert (costs.nelbo[1:] > costs.nelbo[0] + 3).all()


def test_a_missing_time_is_filled_and_a_given_one_is_kept(office: Engine) -> None:
    given = decode(np.array([[np.nan], [MONDAY + 10 * HOUR]]), np.array([[1], [0]]), office.schema)
    filled = office.reconstruct(given, 0, seed=0).batch
    assert filled["t"][0].as_py().hour >= 13
    assert filled["t"][1] == given["t"][1]
