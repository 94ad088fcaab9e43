"""MODEL_CARD.md: what the artifact is, what it may be used for and what was measured, as model
cards use to say it."""

import html
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nelbo.artifact import REACH, Manifest

from ..evaluate import Evaluation
from ..tail import notices
from . import figures, words
from .verdict import verdict

_MARKUP = re.compile(r"([\\`*_\[\]#|~$])")


def model_card(manifest: Manifest, evaluation: Evaluation | None = None) -> str:
    """The card as Markdown, without a verdict where there is no evaluation. It holds no times:
    equal manifests give equal cards."""
    schema = manifest.table_schema
    pairs = figures.pairs(schema, evaluation) if evaluation else []
    marginals = figures.marginals(schema, evaluation) if evaluation else []
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(words, name)
        for name in ("with_commas", "nats", "percent", "share", "signed", "small")
    }
    environment.filters |= {"plain": _plain, "code": _code}
    tail = manifest.calibration.used_tail
    return environment.get_template("MODEL_CARD.md.j2").render(
        manifest=manifest,
        schema=schema,
        verdict=verdict(evaluation, marginals, pairs) if evaluation else None,
        pairs=pairs[: figures.PAIRS],
        metrics=manifest.metrics,
        n=len(manifest.calibration.scores),
        tail=tail,
        shape=sum(weight * shape for weight, shape, _ in tail.components) if tail else 0.0,
        not_used=list(notices(manifest.calibration))
        if manifest.config.get("peaks_over_threshold")
        else [],
        of=words.of,
        likelihood_of=figures.likelihood_of,
        reach=list(figures.reach(manifest.calibration)),
        trust=REACH,
    )


def _plain(text: str, most: int = 60) -> str:
    """A user's text that Markdown shows as it is."""
    return _MARKUP.sub(r"\\\1", html.escape(words.shown(text, most), quote=False))


def _code(text: str, most: int = 200) -> str:
    """A user's text as code in a table of Markdown."""
    return "`" + words.shown(text, most).replace("`", "'").replace("|", r"\|") + "`"
