"""The ONNX graphs of a fitted VAE: score, posterior, spread, prior and generate. Noise is an input:
no graph holds a random node.

Each graph is what the model's own formulas make of values instead of tensors (see arrays), and
export compares it with torch on real rows.
"""

import numpy as np
import onnx
import torch

from .arrays import concat, where
from .columns import UNROLLED
from .decoder import SHARP, CellsToDraw, Drawable, Mask
from .gaussians import normals
from .masses import MASKED
from .nodes import Nodes, Value
from .prior import Mixture
from .vae import VAE

ACTIVATIONS = 2**24
"""Bytes of a batch's activations, about."""


def batch_for(vae: VAE) -> int:
    """Rows of the one fixed batch: a power of two from 16 to 256 whose activations stay near 16
    MiB.

    Those are all columns' logits and hidden units or, where a Scan has those of one column at a
    time, the encoder's embeddings.
    """
    d = len(vae.likelihoods.columns)
    if d > UNROLLED:
        floats = d * vae.encoder.embedding.weight.shape[1]
    else:
        logits = sum(vae.likelihoods.sizes)
        floats = len(vae.eps) * (logits + 4 * d * vae.decoder.hidden.shape[-1])
    return int(2 ** np.clip(np.floor(np.log2(ACTIVATIONS / (4 * floats))), 4, 8))


def draws_for(vae: VAE) -> dict[str, int]:
    """Uniform numbers of a row: z takes one for the mixture's component and two for each pair of
    normals."""
    latent = vae.eps.shape[1]
    likelihoods = vae.likelihoods
    rarer = len(likelihoods.category_at) if likelihoods.categories.has_rarer else 0
    return {
        "z": 1 + 2 * ((latent + 1) // 2),
        "x": len(likelihoods.columns) + len(likelihoods.number_at) + rarer,
    }


def build(vae: VAE, batch: int) -> dict[str, onnx.ModelProto]:
    """The graphs by name, for batches of exactly `batch` rows."""
    writer = _Writer(vae, batch)
    graphs = {
        "score": writer.score(),
        "posterior": writer.posterior(),
        "spread": writer.spread(),
        "prior": writer.prior(),
        "generate": writer.generate(),
    }
    for model in graphs.values():
        onnx.checker.check_model(model)
    return graphs


class _Writer:
    """One method for each graph, with its inputs and outputs in the manifest's order; B is the
    batch."""

    def __init__(self, vae: VAE, batch: int) -> None:
        assert isinstance(vae.prior, Mixture), "the prior is fitted before export"
        self.vae = vae
        self.mixture = vae.prior
        self.batch = batch
        self.draws = draws_for(vae)
        self.latent = vae.eps.shape[1]
        self.d = len(vae.likelihoods.columns)
        self.cells = [batch, len(vae.likelihoods.fitted)]

    def score(self) -> onnx.ModelProto:
        """numbers, codes → nelbo float64[B], terms float64[B, d_t], kl float64[B], costs float64[B,
        M, d_t]: VAE.score_rows."""
        nodes = Nodes(self.batch)
        scored = self.vae.score_rows(*self._rows(nodes))
        costs = concat([costs.unsqueeze(1) for costs in scored.costs], 1)
        nodes.output("nelbo", scored.nelbo, [self.batch])
        nodes.output("terms", scored.terms, self.cells)
        nodes.output("kl", scored.kl, [self.batch])
        nodes.output("costs", costs, [self.batch, len(scored.costs), self.cells[1]])
        return nodes.model()

    def posterior(self) -> onnx.ModelProto:
        """numbers, codes, observed, u float64[B, draws z], mode bool[1] → z ~ q(z | observed cells)
        (its mean if mode), x codes, mu and log_var of q."""
        nodes = Nodes(self.batch)
        likelihoods = self.vae.likelihoods
        x, _ = likelihoods.encode(*self._rows(nodes))
        observed = likelihoods.of_fields(nodes.input("observed", "bool", self.cells))
        u = nodes.input("u", "float64", [self.batch, self.draws["z"]])
        mode = nodes.input("mode", "bool", [1])

        mu, log_var = self.vae.encoder(where(observed, x, likelihoods.masses.hidden))
        noise = where(mode, 0.0, normals(u[:, 1:], self.latent))
        z = mu + (0.5 * log_var).exp() * noise
        nodes.output("z", z, [self.batch, self.latent])
        nodes.output("x", x, [self.batch, self.d])
        nodes.output("mu", mu, [self.batch, self.latent])
        nodes.output("log_var", log_var, [self.batch, self.latent])
        return nodes.model()

    def spread(self) -> onnx.ModelProto:
        """mu, log_var of q(z|x), u float64[B, draws z], spread float64[1] → z:
        Mixture.draw_between."""
        nodes = Nodes(self.batch)
        mu = nodes.input("mu", "float32", [self.batch, self.latent])
        log_var = nodes.input("log_var", "float32", [self.batch, self.latent])
        u = nodes.input("u", "float64", [self.batch, self.draws["z"]])
        spread = nodes.input("spread", "float64", [1])
        z = self.mixture.draw_between(mu, log_var, u, spread)
        nodes.output("z", z, [self.batch, self.latent])
        return nodes.model()

    def prior(self) -> onnx.ModelProto:
        """u float64[B, draws z] → z: Mixture.draw."""
        nodes = Nodes(self.batch)
        z = self.mixture.draw(nodes.input("u", "float64", [self.batch, self.draws["z"]]))
        nodes.output("z", z, [self.batch, self.latent])
        return nodes.model()

    def generate(self) -> onnx.ModelProto:
        """z, x int64[B, d] codes, keep bool[B, d_t], u float64[B, draws x], mode, fill → numbers,
        codes from p(x|z), where cells to keep have their code in x.

        With `fill`, a cell that may be drawn as missing is drawn from what else it may be.
        """
        nodes = Nodes(self.batch)
        likelihoods = self.vae.likelihoods
        z = nodes.input("z", "float32", [self.batch, self.latent])
        x = nodes.input("x", "int64", [self.batch, self.d])
        keep = likelihoods.of_fields(nodes.input("keep", "bool", self.cells))
        u = nodes.input("u", "float64", [self.batch, self.draws["x"]])
        mode = nodes.input("mode", "bool", [1])
        fill = nodes.input("fill", "bool", [1])

        sharpness = where(mode, nodes.constant(SHARP), nodes.constant(np.float32(1)))
        cells = CellsToDraw(x, keep, u[:, : self.d], sharpness)
        drawn = self.vae.decoder.draw(z, cells, self._drawable(mode, fill), self.batch)

        of_numbers = self.d + len(likelihoods.number_at)
        u_numbers = where(mode, 0.5, u[:, self.d : of_numbers])
        u_rarer = u[:, of_numbers:]
        if likelihoods.categories.has_rarer:
            u_rarer = where(mode, 0.0, u_rarer)
        numbers, codes = likelihoods.draw(drawn, u_numbers, u_rarer)
        schema = likelihoods.schema
        nodes.output("numbers", numbers, [self.batch, len(schema.numbers)])
        nodes.output("codes", codes, [self.batch, len(schema.categoricals)])
        return nodes.model()

    def _drawable(self, mode: Value, fill: Value) -> Drawable:
        """In the mode, a cluster is as probable as its most frequent member."""
        likelihoods = self.vae.likelihoods
        masses = likelihoods.masses
        masks = []
        if likelihoods.categories.has_rarer:
            masks.append(Mask("as_member", likelihoods.log_most, mode.float()))
        if masses.may_be_filled.any():
            missing = torch.zeros(sum(masses.sizes))
            missing[(masses.start + masses.other + 1)[masses.may_be_filled]] = MASKED
            masks.append(Mask("no_missing", missing, fill.float()))
        return Drawable(masses.drawn, masks, likelihoods.missing_together)

    def _rows(self, nodes: Nodes) -> tuple[Value, Value]:
        """Encoded rows, as they come in."""
        schema = self.vae.likelihoods.schema
        return (
            nodes.input("numbers", "float64", [self.batch, len(schema.numbers)]),
            nodes.input("codes", "int64", [self.batch, len(schema.categoricals)]),
        )
