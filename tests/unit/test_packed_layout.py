import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeelad.engine.packed.layout import HIDDEN, lay_out

TREES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=6)


def test_the_longest_sequence_comes_first_and_the_others_share_its_columns() -> None:
    layout = lay_out([[1, 2, 3], [1, 2, 3, 4, 5], [1, 9, 8]])
    assert layout.tokens == (1, 2, 3, 4, 5, 9, 8)
    assert layout.positions == (0, 1, 2, 3, 4, 1, 2)
    assert [point.end for point in layout.points] == [2, 4, 6]


@given(TREES)
def test_the_ancestors_of_a_column_spell_its_sequence(sequences: list[list[int]]) -> None:
    layout = lay_out(sequences)
    bias = layout.bias()[0, 0]
    num_columns = len(layout.tokens)
    causal = np.tril(np.ones((num_columns, num_columns), dtype=bool))
    for sequence, point in zip(sequences, layout.points, strict=True):
        seen = np.flatnonzero((bias[point.end] == 0) & causal[point.end])
        assert [layout.tokens[column] for column in seen] == sequence
        assert [layout.positions[column] for column in seen] == list(range(len(sequence)))
        shown = np.flatnonzero(layout.branch_bias(point, num_columns + 5) == 0)
        assert shown.tolist() == seen.tolist()


@given(TREES)
def test_shared_prefixes_occur_once(sequences: list[list[int]]) -> None:
    layout = lay_out(sequences)
    assert len(layout.tokens) <= sum(len(sequence) for sequence in sequences)
    assert set(np.unique(layout.bias())) <= {HIDDEN, np.float32(0)}
    if all(sequence == max(sequences, key=len)[: len(sequence)] for sequence in sequences):
        assert len(layout.tokens) == max(len(sequence) for sequence in sequences)
