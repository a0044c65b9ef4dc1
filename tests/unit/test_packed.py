"""The packed engine against the reference, and against itself in other batches: the same bits."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.fused import FusedFolders
from fixtures.students import FAMILIES, MAX_CONTEXT, StudentFolders
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeelad.engine.generate import BranchPoint, GeneratedTokens, Limits, Stop, TreeRequest, TreeResult
from edgeelad.engine.graph_files import GraphFiles
from edgeelad.engine.packed import group, sequential_trees
from edgeelad.engine.packed.generator import PackedGenerator
from edgeelad.engine.packed.graph import Feed, PackedGraph
from edgeelad.engine.plain.graph import OnnxGraph
from edgeelad.engine.plain.reference import force_one, generate_one
from edgeelad.engine.sampling import SamplingParams
from edgeelad.errors import ModelError

LIMITS = Limits(frozenset({2, 17, 40}), MAX_CONTEXT)
GREEDY = SamplingParams(20)
SAMPLED = SamplingParams(20, temperature=0.8)
TOLERANCE = 3e-5
MANY = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory, students: StudentFolders) -> FusedFolders:
    return FusedFolders(tmp_path_factory.mktemp("fused"), students)


@pytest.fixture(scope="module", params=["fp32", "int8"])
def files(request: pytest.FixtureRequest, fused: FusedFolders) -> GraphFiles:
    return GraphFiles(fused.folder("llama"), request.param)


@pytest.fixture(scope="module", params=["engine", "lanes"])
def engine(request: pytest.FixtureRequest, files: GraphFiles) -> PackedGraph:
    return PackedGraph(getattr(files, request.param))


def make_prompts(count: int, seed: int = 0, longest: int = 40) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 390, int(length)).tolist() for length in rng.integers(1, longest, count)]


def make_requests(count: int, seed: int = 0, num_branches: int = 3) -> list[TreeRequest]:
    rng = np.random.default_rng(seed)
    requests = []
    for prompt in make_prompts(count, seed):
        completion = rng.integers(3, 390, int(rng.integers(1, 30))).tolist()
        places = sorted(set(rng.integers(0, len(completion) + 1, 4).tolist()))
        points = [BranchPoint(place, tuple(rng.integers(0, 2**63, num_branches).tolist()), (5, 6)) for place in places]
        requests.append(TreeRequest(tuple(prompt), tuple(completion), tuple(points)))
    return requests


def check_same(found: GeneratedTokens, expected: GeneratedTokens) -> None:
    assert found.ids == expected.ids
    assert found.finish_reason == expected.finish_reason
    assert found.logprobs == pytest.approx(expected.logprobs, abs=TOLERANCE)
    assert found.entropies == pytest.approx(expected.entropies, abs=TOLERANCE)


@pytest.mark.parametrize("kind", ["engine", "lanes", "alone"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("params", [GREEDY, SAMPLED, SamplingParams(9, 1.2, top_k=5, top_p=0.8)], ids=str)
def test_sequences_are_what_the_reference_defines(
    fused: FusedFolders, family: str, params: SamplingParams, kind: str
) -> None:
    files = GraphFiles(fused.folder(family))
    reference, prompts = OnnxGraph(files.standard), make_prompts(7)
    seeds = list(range(100, 107))
    path, is_alone = getattr(files, "engine" if kind == "alone" else kind), kind == "alone"
    generator = PackedGenerator(PackedGraph(path, spin_us=20 * is_alone), is_alone=is_alone)
    found = generator.generate(prompts, params, LIMITS, seeds)
    for sequence, prompt, seed in zip(found, prompts, seeds, strict=True):
        check_same(sequence, generate_one(reference, prompt, params, LIMITS, seed))


@pytest.mark.parametrize("kind", ["engine", "lanes"])
@pytest.mark.parametrize("family", FAMILIES)
def test_trees_are_what_the_reference_defines(fused: FusedFolders, family: str, kind: str) -> None:
    """Every branch and every forced token against its own sequence, alone and recomputed from the start."""
    files = GraphFiles(fused.folder(family))
    reference, requests = OnnxGraph(files.standard), make_requests(4)
    results = PackedGenerator(PackedGraph(getattr(files, kind))).generate_trees(requests, SAMPLED, LIMITS)
    for request, result in zip(requests, results, strict=True):
        for point, branches, forced in zip(request.points, result.branches, result.forced, strict=True):
            prefix = [*request.prompt_ids, *request.completion_ids[: point.num_tokens]]
            for seed, branch in zip(point.seeds, branches, strict=True):
                check_same(branch, generate_one(reference, prefix, SAMPLED, LIMITS, seed))
            expected = force_one(reference, prefix, point.forced_ids)
            assert forced is not None
            assert forced.id == expected.id
            assert forced.entropy == pytest.approx(expected.entropy, abs=TOLERANCE)


@pytest.fixture(scope="module")
def sequences_alone(engine: PackedGraph) -> list[GeneratedTokens]:
    return [PackedGenerator(engine, 1).generate([prompt], SAMPLED, LIMITS, [7])[0] for prompt in make_prompts(8)]


@pytest.fixture(scope="module")
def trees_alone(engine: PackedGraph) -> list[TreeResult]:
    return [PackedGenerator(engine).generate_trees([request], SAMPLED, LIMITS)[0] for request in make_requests(10)]


@MANY
@given(st.permutations(range(8)), st.integers(1, 8), st.integers(1, 9))
def test_a_sequence_is_the_same_bits_in_any_batch(
    engine: PackedGraph, sequences_alone: list[GeneratedTokens], order: list[int], count: int, batch_size: int
) -> None:
    prompts = make_prompts(8)
    chosen = order[:count]
    generator = PackedGenerator(engine, batch_size)
    found = generator.generate([prompts[index] for index in chosen], SAMPLED, LIMITS, [7] * count)
    assert found == [sequences_alone[index] for index in chosen]


@MANY
@given(st.permutations(range(10)), st.integers(1, 10), st.sampled_from([None, 1, 400]))
def test_a_tree_is_the_same_bits_in_any_batch(
    engine: PackedGraph, trees_alone: list[TreeResult], order: list[int], count: int, columns: int | None
) -> None:
    """Whatever else runs, in any order, and with any memory; on the graph with trees, in groups of any size."""
    requests = make_requests(10)
    room = None if columns is None else columns * engine.bytes_per_token
    generator = PackedGenerator(engine, kv_bytes=room)
    generator.generate(make_prompts(3, seed=5), GREEDY, LIMITS)
    found = generator.generate_trees([requests[index] for index in order[:count]], SAMPLED, LIMITS)
    is_same = [result == trees_alone[index] for result, index in zip(found, order, strict=False)]
    assert all(is_same), is_same


@pytest.mark.parametrize("capacity", [1, 90, 150, 400])
def test_a_tree_that_does_not_fit_runs_in_groups(
    fused: FusedFolders, capacity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Little room: dead columns are cleared, branches are set aside and start over from their own tokens."""
    monkeypatch.setattr(sequential_trees, "GROUP_SIZE", 5)
    monkeypatch.setattr(group, "MIN_DEAD", 4)
    files = GraphFiles(fused.folder("qwen3"))
    reference, (request,) = OnnxGraph(files.standard), make_requests(1, num_branches=6)
    generator = PackedGenerator(PackedGraph(files.engine), tree_capacity=capacity)
    (result,) = generator.generate_trees([request], SAMPLED, LIMITS)
    for point, branches in zip(request.points, result.branches, strict=True):
        prefix = [*request.prompt_ids, *request.completion_ids[: point.num_tokens]]
        for seed, branch in zip(point.seeds, branches, strict=True):
            check_same(branch, generate_one(reference, prefix, SAMPLED, LIMITS, seed))


def test_context_ends_sequences(fused: FusedFolders) -> None:
    generator = PackedGenerator(PackedGraph(GraphFiles(fused.folder("llama")).engine))
    limits = Limits(frozenset(), 32)
    prompts = [list(range(3, 3 + length)) for length in (31, 32, 40, 10)]
    for each in (generator, PackedGenerator(generator.graph, is_alone=True)):
        found = each.generate(prompts, SamplingParams(50), limits)
        assert [len(sequence.ids) for sequence in found] == [1, 0, 0, 22]
        assert {sequence.finish_reason for sequence in found} == {"length"}
    points = tuple(BranchPoint(count, (1, 2), (5, 6, 7)) for count in (0, 2, 4, 6))
    request = TreeRequest(tuple(range(3, 29)), tuple(range(40, 46)), points)
    (result,) = generator.generate_trees([request], SamplingParams(50, 1.0), limits)
    assert [[len(branch.ids) for branch in group] for group in result.branches] == [[6, 6], [4, 4], [2, 2], [0, 0]]
    assert [forced is not None for forced in result.forced] == [True, True, False, False]


def test_a_stop_ends_a_sequence(fused: FusedFolders) -> None:
    generator = PackedGenerator(PackedGraph(GraphFiles(fused.folder("llama")).engine))
    prompts = make_prompts(5)
    free = generator.generate(prompts, GREEDY, Limits(frozenset(), MAX_CONTEXT))
    stop = Stop(frozenset(range(400)), lambda ids: len(ids) == 3)
    for sequence, whole in zip(
        generator.generate(prompts, GREEDY, Limits(frozenset(), MAX_CONTEXT, stop)), free, strict=True
    ):
        assert sequence.ids == whole.ids[:3]
        assert sequence.finish_reason == "stop"


@pytest.mark.parametrize("max_tokens", [1, 12, 500])
def test_streaming_gives_the_greedy_sequence(engine: PackedGraph, max_tokens: int) -> None:
    generator = PackedGenerator(engine, is_alone=True)
    for prompt in make_prompts(4):
        (whole,) = generator.generate([prompt], SamplingParams(max_tokens), LIMITS)
        assert tuple(generator.stream(prompt, max_tokens, LIMITS)) == whole.ids


def test_a_shared_prefix_is_prefilled_once_and_changes_nothing(
    engine: PackedGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first prompt that has it gets the same bits as later ones; the tokens are those of a prefill in one piece."""
    shared = list(range(60, 83))
    prompts = [[*shared, *prompt] for prompt in make_prompts(4)] + [shared[:20], shared[:21], *make_prompts(2)]
    num_new: list[int] = []
    run = engine.run

    def counting(feeds: dict[int, Feed], num_top: int) -> Any:
        num_new.append(sum(feed.input_ids.size for feed in feeds.values()))
        return run(feeds, num_top)

    def generator() -> PackedGenerator:
        return PackedGenerator(engine, is_alone=True, shared_prompt=lambda: shared)

    first = [generator().generate([prompt], SAMPLED, LIMITS, [7])[0] for prompt in prompts]
    plain = PackedGenerator(engine, is_alone=True).generate(prompts, SAMPLED, LIMITS, [7] * len(prompts))
    for found, expected in zip(first, plain, strict=True):
        check_same(found, expected)
    later = generator()
    monkeypatch.setattr(engine, "run", counting)
    assert later.generate(prompts, SAMPLED, LIMITS, [7] * len(prompts)) == first
    # 20 of the 23 tokens: a multiple of four
    assert [size for size in num_new if size > 1] == [
        20,
        *(len(prompt) - 20 for prompt in prompts[:4]),
        20,
        *map(len, prompts[-2:]),
    ]


def test_nothing_to_do(fused: FusedFolders) -> None:
    generator = PackedGenerator(PackedGraph(GraphFiles(fused.folder("llama")).engine))
    assert generator.generate([], GREEDY, LIMITS) == []
    assert generator.generate_trees([], SAMPLED, LIMITS) == []
    (result,) = generator.generate_trees([TreeRequest((5, 6), (7,), ())], SAMPLED, LIMITS)
    assert result.branches == result.forced == ()


def test_nan_is_an_error(fused: FusedFolders, tmp_path: Path) -> None:
    files = GraphFiles(fused.folder("llama"))
    for path in (files.engine, files.weights):
        shutil.copyfile(path, tmp_path / path.name)
    weights = tmp_path / files.weights.name
    weights.write_bytes(np.full(weights.stat().st_size // 4, np.nan, np.float32).tobytes())
    generator = PackedGenerator(PackedGraph(tmp_path / files.engine.name))
    with pytest.raises(ModelError, match="NaN"):
        generator.generate([[5, 6]], GREEDY, LIMITS)


def test_a_truncated_weights_file_is_an_error(fused: FusedFolders, tmp_path: Path) -> None:
    files = GraphFiles(fused.folder("llama"))
    shutil.copyfile(files.engine, tmp_path / files.engine.name)
    (tmp_path / files.weights.name).write_bytes(files.weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot load"):
        PackedGraph(tmp_path / files.engine.name)
