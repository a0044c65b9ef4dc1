"""Sequences that join and leave a batch: the same bits in any company, whatever the others do."""

from typing import Any

import numpy as np
import pytest
from fixtures.fused import FusedFolders
from fixtures.students import MAX_CONTEXT, StudentFolders
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeelad.engine.generate import GeneratedTokens, Limits, LiveBatch, LiveSequence, SequenceRequest, TokenGenerator
from edgeelad.engine.graph_files import GraphFiles
from edgeelad.engine.packed.generator import PackedGenerator
from edgeelad.engine.packed.graph import Feed, PackedGraph
from edgeelad.engine.packed.live import PackedLiveBatch
from edgeelad.engine.packed.prefix import SharedPrefix
from edgeelad.engine.plain.batch import BatchGenerator
from edgeelad.engine.plain.graph import OnnxGraph
from edgeelad.engine.sampling import SamplingParams
from edgeelad.errors import ModelError

LIMITS = Limits(frozenset({2, 17, 40}), MAX_CONTEXT)
WAYS = (SamplingParams(15), SamplingParams(12, 0.8), SamplingParams(20, 1.3, top_p=0.7), SamplingParams(1, 0.5))
MANY = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


SHARED = tuple(range(60, 83))  # what most prompts begin with


def make_requests(count: int) -> list[SequenceRequest]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 40, count)
    prompts = [(*SHARED[: 23 * (i % 3 > 0)], *rng.integers(3, 390, int(n)).tolist()) for i, n in enumerate(lengths)]
    return [SequenceRequest(prompt, WAYS[i % len(WAYS)], 100 + i, 5 * (i % 2)) for i, prompt in enumerate(prompts)]


REQUESTS = make_requests(8)


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory, students: StudentFolders) -> FusedFolders:
    return FusedFolders(tmp_path_factory.mktemp("fused"), students)


@pytest.fixture(scope="module", params=["fp32", "int8", "rows", "int4", "lanes", "standard"])
def generator(request: pytest.FixtureRequest, fused: FusedFolders) -> TokenGenerator:
    if request.param == "int4":
        files = GraphFiles(fused.int4(), "int4")
    else:
        files = GraphFiles(fused.folder("llama"), "int8" if request.param in ("int8", "rows") else "fp32")
    if request.param == "standard":
        return BatchGenerator(OnnxGraph(files.standard))
    graph = PackedGraph({"lanes": files.lanes, "rows": files.rows}.get(request.param, files.engine))
    return PackedGenerator(graph, shared_prompt=lambda: SHARED)


def finish(batch: LiveBatch, request: SequenceRequest) -> LiveSequence:
    sequence = batch.add(request)
    assert sequence is not None, "an empty batch has room for any sequence"
    while batch.live:
        batch.step()
    return sequence


@pytest.fixture(scope="module")
def alone(generator: TokenGenerator) -> list[LiveSequence]:
    return [finish(generator.open_batch(LIMITS, 1), request) for request in REQUESTS]


def everything(sequence: LiveSequence) -> tuple[GeneratedTokens, list[list[tuple[int, float]]]]:
    return sequence.result(), sequence.top


def test_sequences_are_what_generate_gives(generator: TokenGenerator, alone: list[LiveSequence]) -> None:
    for request, sequence in zip(REQUESTS, alone, strict=True):
        (expected,) = generator.generate([request.prompt_ids], request.params, LIMITS, [request.seed])
        assert sequence.ids == list(expected.ids)
        assert sequence.finish_reason == expected.finish_reason
        assert sequence.logprobs == pytest.approx(expected.logprobs, abs=3e-5)


def test_the_most_likely_tokens_come_with_each_token(alone: list[LiveSequence]) -> None:
    for request, sequence in zip(REQUESTS, alone, strict=True):
        assert len(sequence.top) == (len(sequence.logprobs) if request.num_top else 0)
        for token, logprob, top in zip(sequence.ids, sequence.logprobs, sequence.top, strict=False):
            assert len(top) == 5
            assert [value for _, value in top] == sorted((value for _, value in top), reverse=True)
            assert (token, logprob) in top or logprob <= top[-1][1]
            if request.params.temperature == 0.0:
                assert top[0] == (token, logprob)


@MANY
@given(st.data())
def test_a_sequence_is_the_same_bits_in_any_company(
    generator: TokenGenerator, alone: list[LiveSequence], data: st.DataObject
) -> None:
    """Sequences join in any order, when there is room, and some leave early."""
    order = data.draw(st.permutations(range(len(REQUESTS))))
    leaving = data.draw(st.sets(st.sampled_from(range(len(REQUESTS))), max_size=3))
    batch = generator.open_batch(LIMITS, data.draw(st.integers(1, 6)))
    if isinstance(batch, PackedLiveBatch):  # from room for a single sequence to room for all
        batch.kv_bytes = data.draw(st.sampled_from([1, 3 * 256, 100 * 256])) * generator.graph.bytes_per_token  # type: ignore[attr-defined]
    waiting, found = list(order), {}
    while waiting or batch.live:
        if waiting and (not batch.live or data.draw(st.booleans())):
            sequence = batch.add(REQUESTS[waiting[0]])
            assert sequence is not None or batch.live
            if sequence is not None:
                found[waiting.pop(0)] = sequence
            continue
        batch.step()
        for index in leaving & found.keys():
            if len(found[index].ids) > 3:
                batch.remove(found[index])
    for index, sequence in found.items():
        if sequence.finish_reason is not None:
            assert everything(sequence) == everything(alone[index])
        else:
            assert index in leaving
            assert sequence.ids == alone[index].ids[: len(sequence.ids)]


def test_buffers_grow_for_a_long_sequence_and_shrink_for_many_short_ones(
    fused: FusedFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeelad.engine.packed.live.CAPACITY_STEP", 8)
    graph = PackedGraph(GraphFiles(fused.folder("llama")).engine)
    batch = PackedLiveBatch(graph, LIMITS, 4, 64 * graph.bytes_per_token, SharedPrefix(graph, tuple))
    short = [SequenceRequest((5, 6, 7 + i), SamplingParams(9)) for i in range(4)]
    long = SequenceRequest(tuple(range(50, 75)), SamplingParams(20))
    expected = [finish(batch, request).result() for request in (short[0], long, *short[1:])]
    first = batch.add(short[0])
    assert batch.add(long) is None  # two rows of 48 tokens are more than 64
    batch.clear()
    second = batch.add(long)
    assert batch.add(short[0]) is None
    while batch.live:
        batch.step()
    assert first is not None
    assert second is not None
    assert second.result() == expected[1]
    found = [batch.add(request) for request in short]
    assert all(sequence is not None for sequence in found)
    while batch.live:
        batch.step()
    assert [sequence.result() for sequence in found if sequence] == [expected[0], *expected[2:]]


def test_a_long_prompt_is_read_in_parts_while_others_advance(
    generator: TokenGenerator, alone: list[LiveSequence], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeelad.engine.packed.live.PART_TOKENS", 64)  # more than REQUESTS have
    rng = np.random.default_rng(1)
    long, longer = (
        SequenceRequest((*SHARED, *rng.integers(3, 390, length).tolist()), SamplingParams(9, 0.9), 5, 2)
        for length in (70, 80)
    )
    expected = everything(finish(generator.open_batch(LIMITS, 1), long))
    batch = generator.open_batch(LIMITS, 3)
    others = [sequence for request in REQUESTS[:2] if (sequence := batch.add(request)) is not None]
    found = batch.add(long)
    if batch.num_rows == 1:
        assert found is None
        return
    assert found is not None
    assert batch.add(longer) is None
    batch.step()
    assert (len(found.ids), len(others[0].ids)) == (0, 2)
    while batch.live:
        batch.step()
    assert everything(found) == expected
    assert [everything(sequence) for sequence in others] == [everything(sequence) for sequence in alone[:2]]
    left = batch.add(long)
    assert left is not None
    batch.remove(left)
    assert not batch.live
    assert everything(finish(batch, long)) == expected
    (whole,) = generator.generate([long.prompt_ids], long.params, LIMITS, [long.seed])
    assert whole.ids == expected[0].ids


@pytest.mark.parametrize("part_tokens", [64, 16])
def test_sequences_with_the_same_prompt_prefill_it_once(
    fused: FusedFolders, part_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeelad.engine.packed.live.PART_TOKENS", part_tokens)
    prompt = tuple(range(50, 90))
    requests = [
        *(SequenceRequest(prompt, SamplingParams(9, 1.2), seed) for seed in range(3)),
        SequenceRequest(prompt, SamplingParams(9)),
        SequenceRequest(prompt[:-1], SamplingParams(9, 1.2), 0),
        SequenceRequest(prompt, SamplingParams(9, 0.5), 8, 3),
    ]
    generator = PackedGenerator(PackedGraph(GraphFiles(fused.int4(), "int4").engine))
    expected = [everything(finish(generator.open_batch(LIMITS, 1), request)) for request in requests]
    batch, run, num_new = generator.open_batch(LIMITS, 6), generator.graph.run, []

    def counting(feeds: dict[int, Feed], num_top: int) -> Any:
        num_new.append(feeds[0].input_ids.shape[1])
        return run(feeds, num_top)

    monkeypatch.setattr(generator.graph, "run", counting)
    waiting, found = requests[::-1], []
    while waiting or batch.live:
        if waiting and (sequence := batch.add(waiting[-1])) is not None:
            found.append(sequence)
            waiting.pop()
        else:
            batch.step()
    assert [everything(sequence) for sequence in found] == expected
    assert sum(size for size in num_new if size > 1) == len(prompt) + len(prompt[:-1])


def test_a_sequence_with_nan_fails_alone(
    generator: TokenGenerator, alone: list[LiveSequence], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = generator.open_batch(LIMITS, 4)
    if not isinstance(batch, PackedLiveBatch):
        return
    run = generator.graph.run  # type: ignore[attr-defined]

    def broken(feeds: dict[int, Feed], num_top: int) -> Any:
        found, *rest = run(feeds, num_top)
        if feeds.get(0) is not None and len(feeds[0].input_ids) > 1:
            found.normalizers[1] = np.nan
        return found, *rest

    found = [sequence for request in REQUESTS[:3] if (sequence := batch.add(request)) is not None]
    with monkeypatch.context() as patched:
        patched.setattr(generator.graph, "run", broken)  # type: ignore[attr-defined]
        batch.step()
    assert batch.live == [found[0], found[2]]
    while batch.live:
        batch.step()
    assert [everything(found[place]) for place in (0, 2)] == [everything(alone[place]) for place in (0, 2)]
    with pytest.raises(ModelError, match="NaN"):
        found[1].result()


def test_a_batch_is_used_again_after_a_failure(generator: TokenGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = generator.open_batch(LIMITS, 2)
    expected = everything(finish(batch, REQUESTS[0]))
    assert batch.add(REQUESTS[2]) is not None

    def fail(*_: object) -> None:
        raise ModelError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(generator.graph, "run" if isinstance(batch, PackedLiveBatch) else "step", fail)  # type: ignore[attr-defined]
        with pytest.raises(ModelError, match="out of memory"):
            batch.step()
    batch.clear()
    assert not batch.live
    assert everything(finish(batch, REQUESTS[0])) == expected
