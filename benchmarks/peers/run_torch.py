"""Hugging Face `generate`: torch, or Optimum's ORTModelForCausalLM over the graph that Optimum exports.

Every branch is a row of its own, rows are sorted by length and padded on the left. Runs in edgeelad's environment.
"""

import os
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import transformers
from protocol import Run, Work, batches, serve


def load(work: Work) -> tuple[Run, dict[str, Any]]:
    """Load the model: `engine` is "torch" or "optimum"."""
    threads, folder = work.settings["threads"], work.settings["folder"]
    torch.set_num_threads(threads)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    if work.settings["engine"] == "torch":
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    else:
        import importlib.metadata

        import onnxruntime
        from optimum.onnxruntime import ORTModelForCausalLM

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        model = ORTModelForCausalLM.from_pretrained(folder, session_options=options, use_cache=True)
        versions |= {name: importlib.metadata.version(name) for name in ("optimum-onnx", "onnxruntime")}
    settings = {
        "do_sample": True,
        "temperature": work.temperature,
        "top_k": work.top_k,
        "min_new_tokens": work.num_new,
        "max_new_tokens": work.num_new,
        "pad_token_id": 0,
    }

    def run(questions: list[int], every: int, offset: int) -> int:
        total = 0
        for rows in batches(work, questions, work.settings["batch_size"], every, offset):
            width = max(len(row) for row in rows)
            ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
            with torch.inference_mode():
                made = model.generate(input_ids=ids, attention_mask=mask, **settings)
            assert made.shape == (len(rows), width + work.num_new), "forced lengths"
            total += len(rows) * work.num_new
        return total

    about = {"batch_size": work.settings["batch_size"], "threads": threads, "precision": "fp32"}
    return run, {"versions": versions, "settings": about}


if __name__ == "__main__":
    serve(load)
