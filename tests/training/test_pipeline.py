"""A whole run: the same input gives the same bytes, a failed run leaves nothing, and p-values of
fresh rows are honest."""

import errno
import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv

from nelbo.artifact import read_artifact
from nelbo.engine import Engine
from nelbo.errors import Conflict, InvalidInput, NelboError
from nelbo.files import Digest
from nelbo.schema import Column, Schema
from tests.artifacts import linear_artifact
from tests.training.tables import QUICK
from training import cli, pipeline
from training.data import TrainingSource
from training.evaluate import Evaluation, evaluate
from training.exemplars import Exemplars
from training.nodes import Value
from training.pipeline import Run, train

FEW_STEPS = QUICK.model_copy(update={"min_steps": 5, "max_steps": 5})


def table(rows: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 2, rows)
    return pa.table(
        {
            "key": [f"k-{seed}-{i}" for i in range(rows)],
            "amount": pa.array(np.round(rng.gamma(2 + 3 * group, size=rows), 4)),
            "count": pa.array(rng.poisson(3 + 4 * group)),
            "colour": pa.array(rng.choice(["red", "green", "blue"], rows)),
            "day": pa.array(
                np.datetime64("2024-01-01") + rng.integers(0, 365, rows).astype("timedelta64[D]")
            ),
            "flag": pa.array(group == 1, mask=rng.random(rows) < 0.1),
        }
    )


def write(path: Path, rows: int, seed: int = 0) -> Path:
    csv.write_csv(table(rows, seed), path)
    return path


def run(path: Path, out: Path, schema: Schema | None = None) -> Run:
    return train(TrainingSource(path), "sales", out, QUICK, 0, schema, lambda *_: None)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    run(write(folder / "table.csv", 1_200), folder / "artifact")
    return folder


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir()):
        if path.name != "run.json":
            yield path.name, hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_table_configuration_and_seed_give_the_same_bytes(large: Path) -> None:
    run(large / "table.csv", large / "again")
    first, second = dict(_digests(large / "artifact")), dict(_digests(large / "again"))
    assert first == second
    assert {"manifest.json", "score.onnx", "report.html", "MODEL_CARD.md", "history.json"} <= set(
        first
    )


def test_the_manifest_says_what_was_trained_on(large: Path) -> None:
    manifest = read_artifact(large / "artifact").manifest
    assert manifest.order == ("amount", "count", "colour", "day", "flag")
    assert [column.kind for column in manifest.table_schema.identifiers] == ["identifier"]
    assert manifest.table_schema.columns[3].categories == ("blue", "green", "red")
    assert manifest.data["rows"] == 1_200
    digest = Digest()
    with TrainingSource(large / "table.csv").open() as opened:
        for batch in opened.batches(7):
            digest.update(batch)
    assert manifest.table_digest == digest.hexdigest()
    assert len(manifest.calibration.scores) == 120
    assert all(np.isfinite(value) for value in manifest.metrics.values())


def test_p_values_of_fresh_rows_are_about_uniform(large: Path) -> None:
    engine = Engine.load(large / "artifact")
    fresh = engine.score(
        pa.Table.from_batches(table(4_000, seed=9).to_batches()).combine_chunks().to_batches()[0],
    )
    assert not fresh.errors
    for alpha in (0.05, 0.2, 0.5):
        assert (fresh.p_value <= alpha).mean() == pytest.approx(
            alpha, abs=3 * np.sqrt(alpha * (1 - alpha) / 120)
        )


def test_a_small_table_calibrates_across_folds_and_says_so(tmp_path: Path) -> None:
    done = run(write(tmp_path / "small.csv", 60), tmp_path / "artifact")
    calibration = done.artifact.manifest.calibration
    assert calibration.method == "cross-conformal"
    assert len(calibration.scores) == 60
    assert "cross-conformal" in (tmp_path / "artifact" / "MODEL_CARD.md").read_text()


def test_a_tail_that_too_few_rows_can_show_is_not_used_and_the_card_and_the_notices_say_so(
    large: Path, tmp_path: Path
) -> None:
    asked = QUICK.model_copy(update={"peaks_over_threshold": True})
    done = train(
        TrainingSource(large / "table.csv"),
        "sales",
        tmp_path / "artifact",
        asked,
        0,
        None,
        lambda *_: None,
    )
    assert (
        done.artifact.manifest.calibration == read_artifact(large / "artifact").manifest.calibration
    )
    said = (
        "fewer than 50 of 120 calibration scores lie over their 95th percentile; p-values are"
        " counts alone"
    )
    assert done.notices[-1] == f"peaks_over_threshold: {said}"
    for page in ("MODEL_CARD.md", "report.html"):
        assert said in (tmp_path / "artifact" / page).read_text()
        assert said not in (large / "artifact" / page).read_text()


def test_an_evaluation_that_fails_costs_metrics_and_report_but_not_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "evaluate", _fails)
    path, out = write(tmp_path / "table.csv", 60), tmp_path / "artifact"
    config = tmp_path / "run.toml"
    config.write_text("min_steps = 5\nmax_steps = 5\n")
    cli.run(path, "sales", out, config)
    told = capsys.readouterr()
    said = (
        "the evaluation and the report could not be made: ZeroDivisionError: division by zero;"
        " the model itself is whole"
    )
    assert said in told.err
    assert "60 rows" in told.out
    assert "report.html" not in told.out
    assert read_artifact(out).manifest.metrics == {}
    assert (
        "| detection AUC, 0.5 is best | not measured | not measured |"
        in (out / "MODEL_CARD.md").read_text()
    )
    assert not (out / "report.html").exists()
    assert not Engine.load(out).score(table(60, 0).combine_chunks().to_batches()[0]).errors


@pytest.mark.parametrize("absent", ["nelbo", "shape_error", "pair_error_floor", "detect_auc"])
def test_words_card_and_report_do_without_a_metric_that_could_not_be_measured(
    absent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without(*given: Any) -> Evaluation:
        found = evaluate(*given)
        kept = {name: value for name, value in found.metrics.items() if name != absent}
        return replace(found, metrics=kept, notices=(f"metric {absent} could not be measured",))

    monkeypatch.setattr(pipeline, "evaluate", without)
    config = tmp_path / "run.toml"
    config.write_text("min_steps = 5\nmax_steps = 5\n")
    cli.run(write(tmp_path / "table.csv", 60), "sales", tmp_path / "artifact", config)
    told = capsys.readouterr()
    assert f"metric {absent} could not be measured" in told.err
    assert ("not measured" in told.out) == (absent != "detect_auc")
    assert absent not in read_artifact(tmp_path / "artifact").manifest.metrics
    assert "not measured" in (tmp_path / "artifact" / "MODEL_CARD.md").read_text()
    assert (
        f"metric {absent} could not be measured"
        in (tmp_path / "artifact" / "report.html").read_text()
    )


@pytest.mark.parametrize("step", ["write_report", "model_card", "with_tail", "cross_calibration"])
def test_a_later_step_that_fails_is_left_out(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, step, _fails)
    config = FEW_STEPS.model_copy(update={"peaks_over_threshold": True})
    source = TrainingSource(write(tmp_path / "table.csv", 60))
    done = train(source, "sales", tmp_path / "artifact", config, 0, None, lambda *_: None)
    assert [notice for notice in done.notices if "could not be made: ZeroDivisionError" in notice]
    assert done.artifact.manifest.metrics
    assert (done.report is None) == (step == "write_report")


def test_where_a_member_s_scores_differ_the_other_one_scores_and_a_notice_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_as_fitted = Exemplars.score

    def off_in_graphs(self: Exemplars, x: Any, codes: Any) -> tuple[Any, Any]:
        terms, kl = score_as_fitted(self, x, codes)
        return terms + 1 if isinstance(terms, Value) else terms, kl

    monkeypatch.setattr(Exemplars, "score", off_in_graphs)
    made = table(60, 0).select(["amount", "count", "day", "colour"])
    csv.write_csv(made, tmp_path / "table.csv")
    done = train(
        TrainingSource(tmp_path / "table.csv"),
        "sales",
        tmp_path / "artifact",
        FEW_STEPS,
        0,
        None,
        lambda *_: None,
    )
    assert done.artifact.manifest.members == {"vae": 1.0, "exemplars": 0.0}
    assert any(
        notice.startswith("rows are scored by the VAE alone, because terms of ONNX")
        for notice in done.notices
    )
    scored = Engine.load(tmp_path / "artifact").score(made.combine_chunks().to_batches()[0])
    assert np.isfinite(scored.nelbo).all()
    assert np.median(scored.p_value) < 0.9, "calibrated by the same member"


def _fails(*_: object) -> None:
    raise ZeroDivisionError("division by zero")


def test_a_refused_table_leaves_no_artifact_behind(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="too few"):
        run(write(tmp_path / "few.csv", 19), tmp_path / "artifact")
    assert [path.name for path in tmp_path.iterdir()] == ["few.csv"]


def test_a_folder_that_holds_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(Conflict, match="holds no artifact"):
        run(write(tmp_path / "table.csv", 30), tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


@pytest.fixture
def trained(large: Path, tmp_path: Path) -> Path:
    """A copy of the artifact, with a file and a folder of the user's own, and a graph that only the
    older artifact has."""
    folder = shutil.copytree(large / "artifact", tmp_path / "artifact")
    (folder / "notes.md").write_text("mine")
    (folder / "data").mkdir()
    (folder / "data" / "raw.txt").write_text("mine too")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["graphs"]["spread"] = manifest["graphs"]["spread"] | {"file": "older.onnx"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    shutil.copy(folder / "spread.onnx", folder / "older.onnx")
    return folder


OWN = {"notes.md": "mine", "data/raw.txt": "mine too"}


def _own(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in OWN}


def test_training_again_replaces_the_artifact_and_leaves_all_other_files(
    trained: Path, large: Path
) -> None:
    before = set(trained.iterdir())
    path = write(trained.parent / "table.csv", 30)
    done = run(path, trained)
    assert _own(trained) == OWN
    assert set(trained.iterdir()) == before - {trained / "older.onnx"}
    assert (
        read_artifact(trained).digest
        == done.artifact.digest
        != read_artifact(large / "artifact").digest
    )


def test_an_artifact_goes_through_a_link_to_a_folder(trained: Path) -> None:
    link = trained.parent / "link"
    link.symlink_to("artifact")
    with pipeline._whole_or_nothing(link) as made:
        linear_artifact(made)
    assert link.is_symlink()
    assert _own(trained) == OWN
    assert read_artifact(trained).manifest.name == "linear"
    assert not (trained / "older.onnx").exists()
    assert not (trained / "report.html").exists()  # it is the older model's


def _break_off(out: Path, error: BaseException) -> None:
    with pipeline._whole_or_nothing(out) as made:
        linear_artifact(made)
        raise error


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(), OSError(errno.ENOSPC, "No space left on device")]
)
def test_a_training_that_breaks_off_leaves_the_older_artifact_whole(
    error: BaseException, trained: Path
) -> None:
    before = dict(_contents(trained.parent))
    with pytest.raises(type(error)):
        _break_off(trained, error)
    with pytest.raises(type(error)):
        _break_off(trained.parent / "new" / "artifact", error)
    assert dict(_contents(trained.parent)) == before
    assert [path.name for path in trained.parent.iterdir()] == ["artifact"]


@pytest.mark.parametrize("moves", range(1, 14))
def test_a_signal_while_files_are_exchanged_leaves_the_older_artifact_whole(
    moves: int, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "old").mkdir()
    names = [path.name for path in trained.iterdir() if path.suffix in (".onnx", ".json")]
    for name in names:
        (tmp_path / "made" / name).write_text("new")
    before, rename, count = dict(_contents(trained)), Path.rename, itertools.count(1)

    def interrupted(path: Path, target: Path) -> Path:
        renamed = rename(path, target)
        if next(count) == moves:
            raise KeyboardInterrupt
        return renamed

    leaving = [(trained / name, tmp_path / "old" / name) for name in names]
    coming = [(tmp_path / "made" / name, trained / name) for name in names]
    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipeline._rename_all([*leaving, *coming])
    assert dict(_contents(trained)) == before


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes()


def _web_page(out: Path) -> None:
    out.mkdir()
    (out / "manifest.json").write_text('{"name": "My page", "icons": []}')


def _report_folder(out: Path) -> None:
    linear_artifact(out)
    (out / "report.html").mkdir()


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (lambda out: out.write_text("my file"), "is a file"),
        (_web_page, "is no artifact's"),
        (_report_folder, "is a folder"),
    ],
)
def test_what_cannot_become_an_artifacts_folder_is_refused_before_the_table_is_read(
    fill: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fill(out)
    before = dict(_contents(tmp_path))
    with pytest.raises(Conflict, match=words):
        run(tmp_path / "absent.csv", out)
    assert dict(_contents(tmp_path)) == before


@pytest.mark.parametrize(
    ("out", "words"), [("file/out", "Not a directory"), ("x" * 300, "too long")]
)
def test_a_folder_that_cannot_be_made_is_found_before_the_table_is_read(
    out: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NelboError, match=words):
        run(tmp_path / "absent.csv", tmp_path / out)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_rows_that_break_their_columns_kind_are_left_out_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "table.csv", 100)
    lines = path.read_text().splitlines()
    lines[5] = lines[5].replace(lines[5].split(",")[1], "lots")
    path.write_text("\n".join(lines) + "\n")
    done = run(path, tmp_path / "artifact")
    assert done.artifact.manifest.data["refused"] == 1
    assert any("1 of 100 rows" in notice for notice in done.notices)


def test_constant_and_empty_columns_are_kept_and_cost_nothing(tmp_path: Path) -> None:
    made = (
        table(600, 0)
        .append_column("same", pa.array(["x"] * 600))
        .append_column("empty", pa.nulls(600, pa.string()))
    )
    csv.write_csv(made.append_column("seven", pa.array([7] * 600)), tmp_path / "table.csv")
    done = run(tmp_path / "table.csv", tmp_path / "artifact")
    engine = Engine.load(tmp_path / "artifact")
    scored = engine.score(
        made.append_column("seven", pa.array([7] * 600)).combine_chunks().to_batches()[0]
    )
    for name in ("same", "empty", "seven"):
        assert scored.terms[:, done.artifact.manifest.order.index(name)].max() < 0.02


def test_a_schema_file_overrides_what_is_inferred(tmp_path: Path) -> None:
    columns = (Column(name="amount", kind="continuous"), Column(name="count", kind="categorical"))
    done = run(write(tmp_path / "table.csv", 200), tmp_path / "artifact", Schema(columns=columns))
    assert done.artifact.manifest.order == ("amount", "count")
    assert json.loads((tmp_path / "artifact" / "manifest.json").read_text())["likelihoods"][
        "count"
    ].startswith("categorical")


@pytest.mark.parametrize(("share", "doubts"), [(None, True), (0.0, False), (0.05, False)])
def test_a_run_says_which_share_of_the_rows_it_doubts(
    share: float | None, doubts: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    numbers = np.vstack([rng.normal(size=(570, 3)), 7 + 0.05 * rng.normal(size=(30, 3))])
    csv.write_csv(pa.table(dict(zip("abc", numbers.T, strict=True))), tmp_path / "clump.csv")
    config = FEW_STEPS.model_copy(update={"contaminated": share})
    out = tmp_path / "artifact"
    source = TrainingSource(tmp_path / "clump.csv")
    finished = train(source, "clump", out, config, 0, None, lambda *_: None)

    said = [notice for notice in finished.notices if "look normal only beside rows like" in notice]
    assert len(said) == doubts
    assert ("doubted" in finished.artifact.manifest.data) == doubts
    card = (out / "MODEL_CARD.md").read_text("utf-8")
    assert ("training rows that look normal only beside rows like them" in card) == doubts
    assert ("training rows that are anomalies, as set (`contaminated`) | 5.0 %" in card) == (
        share == 0.05
    )
    if doubts:
        assert finished.artifact.manifest.data["doubted"] == pytest.approx(0.05, abs=0.02)


def test_a_run_says_if_the_share_of_anomalies_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "colours.csv"
    csv.write_csv(table(600, 0).select(["colour", "flag"]), path)
    config = FEW_STEPS.model_copy(update={"contaminated": 0.05})
    finished = train(
        TrainingSource(path), "colours", tmp_path / "out", config, 0, None, lambda *_: None
    )
    assert any("contaminated changes nothing here" in notice for notice in finished.notices)
