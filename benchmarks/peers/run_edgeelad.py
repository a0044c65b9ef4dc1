"""edgeelad: the trees of some questions in one `grow` of the product's generator. Runs in edgeelad's environment."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from protocol import Run, Work, serve

from edgeelad.engine.generate import BranchPoint, Limits, TreeRequest
from edgeelad.engine.graph_files import GraphFiles
from edgeelad.engine.options import DEVICE_SPIN_US
from edgeelad.engine.packed.generator import PackedGenerator
from edgeelad.engine.packed.graph import PackedGraph
from edgeelad.engine.sampling import SamplingParams, make_seed
from edgeelad.engine.session import flush_denormals


def load(work: Work) -> tuple[Run, dict[str, Any]]:
    """Open the student's graph: as a worker does, with lanes for trees; as a device does, for one prompt at a time."""
    is_one_by_one = work.settings.get("is_one_by_one", False)
    if not is_one_by_one:
        flush_denormals()
    files = GraphFiles(Path(work.settings["folder"]), work.settings["precision"])
    path = files.engine if is_one_by_one else files.lanes
    graph = PackedGraph(path, work.settings["threads"], spin_us=DEVICE_SPIN_US if is_one_by_one else 0)
    generator = PackedGenerator(graph)
    params = SamplingParams(work.num_new, work.temperature, work.top_k)
    limits = Limits(frozenset(), 1 << 20)  # no end token: every branch is as long as asked

    def run(questions: list[int], every: int, offset: int) -> int:
        assert every == 1, "all or nothing"
        if is_one_by_one:
            return sum(1 for own in questions for _ in generator.stream(work.prompts[own], work.num_new, limits))
        results = generator.generate_trees([_request(work, question) for question in questions], params, limits)
        return sum(len(branch.ids) for result in results for own in result.branches for branch in own)

    settings = {key: work.settings[key] for key in ("precision", "threads")}
    settings |= {"lanes": graph.num_lanes, "weight_bytes": files.weights.stat().st_size}
    return run, {"versions": {"onnxruntime": version("onnxruntime")}, "settings": settings}


def _request(work: Work, question: int) -> TreeRequest:
    points = [BranchPoint(end, _seeds(work, question, number)) for number, end in enumerate(work.ends[question])]
    return TreeRequest(tuple(work.prompts[question]), tuple(work.completions[question]), tuple(points))


def _seeds(work: Work, question: int, prefix: int) -> Sequence[int]:
    return tuple(make_seed(0, str(question), prefix, branch) for branch in range(work.num_branches))


if __name__ == "__main__":
    serve(load)
