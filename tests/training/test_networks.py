"""Tables of code vectors learn smoothly over ordered codes; sizes of networks follow the table."""

import torch

from training.networks import CodeTable, Size


def test_what_one_bin_learns_its_neighbours_learn_too_and_other_codes_do_not() -> None:
    torch.manual_seed(0)
    sizes, ordered = (34, 5), [list(range(1, 33)), []]
    table = CodeTable(sizes, ordered, 16)
    before = table.weight.detach().clone()
    table.weight[10].sum().backward()
    assert table.coefficients.grad is not None
    table.coefficients.data = table.coefficients.detach() - 0.1 * table.coefficients.grad
    moved = (table.weight.detach() - before).abs().sum(1)
    assert moved[10] == moved.max()
    assert all(moved[9] > moved[far] > 0 for far in (4, 16, 32))
    assert float(moved[[0, 33, *range(34, 39)]].max()) == 0
    smooth, rough = (
        (vectors[1:] - vectors[:-1]).square().mean() for vectors in (before[1:33], before[34:])
    )
    assert smooth < rough / 2


def test_fine_columns_get_wide_decoders_and_coarse_columns_or_many_thin_ones() -> None:
    widths = [
        Size.for_table([codes] * columns, 1_000_000, 256).decoder
        for codes, columns in ((66, 10), (40, 15), (5, 15), (66, 1_500))
    ]
    assert widths == [256, 64, 32, 32]
    assert Size.for_table([66] * 10, 1_000_000, 64).decoder == 64
