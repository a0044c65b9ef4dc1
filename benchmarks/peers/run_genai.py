"""onnxruntime-genai's Generator: batches of branches, as `generate` has them; it shares no prefixes.

Every branch is a row of its own, rows are sorted by length and padded on the left. Runs in an environment of its own,
which has onnxruntime-genai and numpy.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai
from protocol import Run, Work, batches, serve


def load(work: Work) -> tuple[Run, dict[str, Any]]:
    """Load the model of one precision with as many threads as are given."""
    folder = Path(work.settings["folder"])
    model = onnxruntime_genai.Model(_with_threads(folder, work.settings["threads"]))
    pad = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]["pad_token_id"]

    is_one_by_one = work.settings.get("is_one_by_one", False)
    choice = {} if is_one_by_one else {"do_sample": True, "temperature": work.temperature, "top_k": work.top_k}

    def run(questions: list[int], every: int, offset: int) -> int:
        total = 0
        for rows in batches(work, questions, work.settings["batch_size"], every, offset):
            width = max(len(row) for row in rows)
            length = width + work.num_new
            params = onnxruntime_genai.GeneratorParams(model)
            params.set_search_options(batch_size=len(rows), max_length=length, min_length=length, **choice)
            generator = onnxruntime_genai.Generator(model, params)
            generator.append_tokens(np.array([[pad] * (width - len(row)) + list(row) for row in rows], dtype=np.int32))
            while not generator.is_done():
                generator.generate_next_token()
            assert all(len(generator.get_sequence(row)) == length for row in range(len(rows))), "forced lengths"
            total += len(rows) * work.num_new
        return total

    versions = {"onnxruntime-genai": onnxruntime_genai.__version__}
    settings = {key: work.settings[key] for key in ("precision", "threads", "batch_size")}
    return run, {"versions": versions, "settings": settings}


def _with_threads(folder: Path, threads: int) -> Any:
    """Its configuration with a number of threads."""
    config = onnxruntime_genai.Config(str(folder))
    config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
    return config


if __name__ == "__main__":
    serve(load)
