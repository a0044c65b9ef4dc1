"""A limit on the KV cache is kept, and changes no result."""

import weakref
from collections.abc import Callable

import pytest
from fixtures.fused import FusedFolders
from fixtures.students import MAX_CONTEXT, StudentFolders
from unit.test_packed import make_prompts, make_requests

from edgeelad.engine.generate import Limits
from edgeelad.engine.graph_files import GraphFiles
from edgeelad.engine.packed.buffers import BranchBuffers, KeyValueBuffers
from edgeelad.engine.packed.generator import PackedGenerator
from edgeelad.engine.packed.graph import PackedGraph
from edgeelad.engine.sampling import SamplingParams

LIMITS = Limits(frozenset({2, 17, 40}), MAX_CONTEXT)
PARAMS = SamplingParams(20, temperature=0.8)


class Held:
    """Counts the bytes of all live buffers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: weakref.WeakKeyDictionary[KeyValueBuffers | BranchBuffers, int] = weakref.WeakKeyDictionary()
        self.most = 0
        for kind, method in ((KeyValueBuffers, "__init__"), (BranchBuffers, "__init__"), (BranchBuffers, "rebuild")):
            monkeypatch.setattr(kind, method, self.counting(getattr(kind, method)))

    def counting(self, method: Callable[..., None]) -> Callable[..., None]:
        def counted(buffers: KeyValueBuffers | BranchBuffers, *args: object) -> None:
            method(buffers, *args)
            self.sizes[buffers] = sum(array.nbytes for array in buffers.arrays)
            self.most = max(self.most, sum(self.sizes.values()))

        return counted


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory, students: StudentFolders) -> FusedFolders:
    return FusedFolders(tmp_path_factory.mktemp("fused"), students)


@pytest.mark.parametrize("kind", ["engine", "lanes"])
@pytest.mark.parametrize("columns", [256, 600, 2000, 10**6])
def test_a_limit_is_kept_and_changes_nothing(
    fused: FusedFolders, kind: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = PackedGraph(getattr(GraphFiles(fused.folder("llama")), kind))
    prompts, requests, seeds = make_prompts(9), make_requests(9), list(range(9))
    free = PackedGenerator(graph, tree_capacity=128)
    expected = free.generate(prompts, PARAMS, LIMITS, seeds), free.generate_trees(requests, PARAMS, LIMITS)
    free.close()
    graph.unbind()
    held = Held(monkeypatch)
    generator = PackedGenerator(graph, tree_capacity=128, kv_bytes=columns * graph.bytes_per_token)
    for _ in range(2):
        assert generator.generate(prompts, PARAMS, LIMITS, seeds) == expected[0]
        assert generator.generate_trees(requests, PARAMS, LIMITS) == expected[1]
    assert 0 < held.most <= columns * graph.bytes_per_token


def test_a_tree_larger_than_the_limit_gets_what_it_needs(fused: FusedFolders) -> None:
    graph = PackedGraph(GraphFiles(fused.folder("llama")).lanes)
    prompts, requests, seeds = make_prompts(3), make_requests(3), [1, 2, 3]
    free, tight = PackedGenerator(graph), PackedGenerator(graph, kv_bytes=1)
    assert tight.generate(prompts, PARAMS, LIMITS, seeds) == free.generate(prompts, PARAMS, LIMITS, seeds)
    assert tight.generate_trees(requests, PARAMS, LIMITS) == free.generate_trees(requests, PARAMS, LIMITS)


def test_closing_is_idempotent(fused: FusedFolders) -> None:
    generator = PackedGenerator(PackedGraph(GraphFiles(fused.folder("llama")).engine))
    generator.close()
    generator.close()
    assert not hasattr(generator, "graph")
