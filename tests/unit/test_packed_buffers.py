"""The buffer pool: blocks in use are never shared, and no more is held than allowed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeelad.engine.packed.buffers import BufferPool


def test_a_block_is_reused_for_arrays_of_at_least_half_its_size() -> None:
    pool = BufferPool(1 << 20)
    first = pool.take((4, 25))
    block = first.base
    pool.give_back(first)
    assert pool.take((7, 7)).base is not block
    again = pool.take((5, 10))
    assert again.base is block
    assert again.shape == (5, 10)


def test_unused_blocks_are_released_at_the_limit() -> None:
    pool = BufferPool(4 * 300)
    small, large = pool.take((100,)), pool.take((200,))
    block = large.base
    pool.give_back(large)
    other = pool.take((300,))  # too large for the block, and both together are more than allowed
    pool.give_back(small)
    assert pool.take((60,)).base is small.base
    assert pool.take((200,)).base is not block
    assert other.base is not block


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)), max_size=40), st.integers(0, 400))
def test_arrays_in_use_do_not_overlap(wanted: list[tuple[int, int]], max_floats: int) -> None:
    pool = BufferPool(4 * max_floats)
    used = {}
    for number, (size, place) in enumerate(wanted):
        if place in used:
            array, mark = used.pop(place)
            assert (array == mark).all()
            pool.give_back(array)
        array = pool.take((size,))
        array.fill(number)
        used[place] = array, number
    for array, mark in used.values():
        assert np.all(array == mark)
