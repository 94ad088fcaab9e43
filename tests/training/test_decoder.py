"""The decoder is autoregressive: a column reads those before it, and no other."""

import torch

from training.decoder import Decoder
from training.networks import Size


def test_a_columns_logits_do_not_depend_on_the_columns_after_it() -> None:
    torch.manual_seed(0)
    sizes = (4, 3, 5, 4, 2)
    d = len(sizes)
    ordered = [[0, 1], [], [1, 2, 3], [], []]
    decoder = Decoder(sizes, ordered, Size(latent=3, encoder=8, decoder=8), torch.zeros(sum(sizes)))
    z, codes = torch.randn(6, 3), torch.stack([torch.randint(0, k, (6,)) for k in sizes], 1)
    for j in range(d):
        changed = codes.clone()
        changed[:, j:] = (changed[:, j:] + 1) % torch.tensor(sizes[j:])
        before, after = decoder(z, codes), decoder(z, changed)
        assert all(torch.equal(x, y) for x, y in zip(before[: j + 1], after[: j + 1], strict=True))
        assert not any(
            torch.allclose(x, y) for x, y in zip(before[j + 1 :], after[j + 1 :], strict=True)
        )
