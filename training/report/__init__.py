"""What people read of a model: report.html, which opens without a network, and MODEL_CARD.md."""

from .card import model_card
from .page import write_report

__all__ = ["model_card", "write_report"]
