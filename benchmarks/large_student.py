"""Export a random student whose float32 graph is larger than 2 GB, the limit of a protobuf, and open what is written.

    python benchmarks/large_student.py --family llama       # fused graphs
    python benchmarks/large_student.py --family gptj        # Optimum's graph

Few layers of wide matrices. Needs four times the student's size on the disk, and five times in memory. Prints the
environment, sizes, parity, and as the last line JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
from machine import describe_machine
from transformers import AutoConfig, AutoModelForCausalLM

from edgeelad.config import ExportConfig
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.student import Student
from edgeelad.export import export_student

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from fixtures.students import make_student, questions

LLAMA = {"hidden_size": 4096, "intermediate_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8}
SHAPES = {"llama": LLAMA, "gptj": {"n_embd": 4096, "n_inner": 4096, "n_head": 16, "rotary_dim": 64}}
PARAMETERS_PER_LAYER = {"llama": 4096 * (2 * 4096 + 2 * 1024 + 3 * 4096), "gptj": 4096 * (4 * 4096 + 2 * 4096)}
ASKED = questions(2)


def main() -> None:
    """Make the student, export it, and let it write some tokens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=list(SHAPES), default="llama")
    parser.add_argument("--quantize", choices=["none", "int8", "int4"], default="int8")
    parser.add_argument("--gigabytes", type=float, default=2.2, help="the least size of the float32 weights")
    arguments = parser.parse_args()
    print(describe_machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        student, onnx = Path(name) / "student", Path(name) / "onnx"
        num_layers = int(arguments.gigabytes * 1e9 / 4 / PARAMETERS_PER_LAYER[arguments.family]) + 1
        make_large(student, arguments.family, num_layers)
        config = ExportConfig(num_parity_prompts=1, quantize=arguments.quantize)
        result = export_student(student, onnx, config, parity_questions=ASKED)
        print(
            f"{result.model_bytes / 1e6:.0f} MB, {result.graphs}; {result.summary}; {result.seconds:.0f} s", flush=True
        )
        with Student.open(onnx, EngineOptions(precision=result.precision)) as opened:
            lengths = [tree.tokens.explanation for tree in opened.explain(ASKED, 8)]
    figures = {"fp32_mb": result.model_bytes / 1e6, "quantized_mb": result.quantized_bytes / 1e6, "tokens": lengths}
    print(json.dumps({"family": arguments.family, "graphs": result.graphs, **figures, "seconds": result.seconds}))


def make_large(folder: Path, family: str, num_layers: int) -> None:
    """A tiny student's tokenizer and prompt, and a large random model."""
    make_student(folder, "llama")
    small = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shared = {key: small[key] for key in ("vocab_size", "max_position_embeddings", "eos_token_id", "pad_token_id")}
    layers = {"llama": "num_hidden_layers", "gptj": "n_layer"}
    config = AutoConfig.for_model(family, **shared | SHAPES[family], bos_token_id=None, **{layers[family]: num_layers})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)


if __name__ == "__main__":
    main()
