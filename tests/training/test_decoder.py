"""The decoder is autoregressive: a column reads those before it and observed ones, and no other."""

import torch

from training.decoder import Decoder
from training.networks import Size

SIZES = (4, 3, 5, 4, 2)
ORDERED = [[0, 1], [], [1, 2, 3], [], []]


def random_decoder() -> tuple[Decoder, torch.Tensor, torch.Tensor]:
    """A decoder with random weights, z and codes of six rows."""
    torch.manual_seed(0)
    size = Size(latent=3, encoder=8, decoder=8)
    decoder = Decoder(SIZES, ORDERED, size, torch.zeros(sum(SIZES)))
    torch.nn.init.normal_(decoder.condition.coefficients)
    codes = torch.stack([torch.randint(0, k, (6,)) for k in SIZES], 1)
    return decoder, torch.randn(6, 3), codes


def test_a_columns_logits_do_not_depend_on_the_columns_after_it() -> None:
    decoder, z, codes = random_decoder()
    for j in range(len(SIZES)):
        changed = codes.clone()
        changed[:, j:] = (changed[:, j:] + 1) % torch.tensor(SIZES[j:])
        before, after = decoder(z, codes), decoder(z, changed)
        assert all(torch.equal(x, y) for x, y in zip(before[: j + 1], after[: j + 1], strict=True))
        assert not any(
            torch.allclose(x, y) for x, y in zip(before[j + 1 :], after[j + 1 :], strict=True)
        )


def test_an_observed_cell_changes_the_columns_before_it_too() -> None:
    decoder, z, codes = random_decoder()
    observed = torch.zeros(codes.shape, dtype=torch.bool)
    observed[:, 3] = True
    changed = codes.clone()
    changed[:, 3] = (changed[:, 3] + 1) % SIZES[3]
    before, after = decoder(z, codes, observed), decoder(z, changed, observed)
    assert not any(torch.allclose(x, y) for x, y in zip(before, after, strict=True))


def test_with_nothing_observed_the_decoder_is_that_of_whole_rows() -> None:
    decoder, z, codes = random_decoder()
    nothing = torch.zeros(codes.shape, dtype=torch.bool)
    for x, y in zip(decoder(z, codes), decoder(z, codes, nothing), strict=True):
        assert torch.equal(x, y)
