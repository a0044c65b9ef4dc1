"""Checkpoints that the other major version of transformers saved: the exported student writes that version's tokens."""

from pathlib import Path

import pytest
import torch
from fixtures.saved_by import ASKED, FAMILIES, NUM_TOKENS, prompt_ids, reference, write_checkpoint
from transformers import AutoModelForCausalLM

from edgeelad.config import ExportConfig, StudentConfig
from edgeelad.engine.codec import Codec
from edgeelad.engine.student import Student
from edgeelad.export import export_student
from edgeelad.training import prepare_student
from edgeelad.training.support import transformers_major

OTHER = "4" if transformers_major() >= 5 else "5"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_of_the_other_version_writes_what_that_version_writes(family: str, tmp_path: Path) -> None:
    entry = reference()[OTHER][family]
    raw = write_checkpoint(tmp_path / "raw", entry, family)
    student = prepare_student(str(raw), tmp_path / "student", StudentConfig(model=str(raw)))
    result = export_student(
        student,
        tmp_path / "onnx",
        ExportConfig(quantize="none", num_parity_prompts=1),
        parity_questions=ASKED,
        previous=None,
    )
    assert result.graphs == "fused"
    codec = Codec.load(tmp_path / "onnx")
    assert [codec.encode_prompt(question) for question in ASKED] == prompt_ids()
    with Student.open(tmp_path / "onnx") as opened:
        texts = [tree.text for tree in opened.explain(ASKED, NUM_TOKENS)]
    assert texts == [codec.decode(ids) for ids in entry["tokens"]]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_installed_version_still_writes_what_is_stored_for_it(family: str, tmp_path: Path) -> None:
    """Of its own checkpoints: otherwise the stored tokens say nothing about another version's."""
    entry = reference()[str(transformers_major())][family]
    raw = write_checkpoint(tmp_path / "raw", entry, family)
    model = AutoModelForCausalLM.from_pretrained(raw, dtype=torch.float32).eval()
    for prompt, tokens in zip(prompt_ids(), entry["tokens"], strict=True):
        with torch.inference_mode():
            choices = model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0].argmax(dim=1)
        assert choices[len(prompt) - 1 : -1].tolist() == tokens
