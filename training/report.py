"""What people read of a model: report.html, which opens without a network, and MODEL_CARD.md."""

from pathlib import Path

from nelbo.artifact import Manifest
from nelbo.engine import Engine
from training.data import Training
from training.evaluate import Evaluation
from training.fit import History


def write_report(path: Path, engine: Engine, training: Training, history: History, evaluation: Evaluation) -> None:
    path.write_text("<html></html>")


def model_card(manifest: Manifest) -> str:
    return f"# {manifest.name}\n"
