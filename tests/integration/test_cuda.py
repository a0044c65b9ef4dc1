"""Fine-tuning on an NVIDIA GPU: what it learns, what it leaves behind, and a whole run that trains there."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.small_run import SmallRun
from fixtures.students import SUMS, make_student, make_sum
from transformers import AutoModelForCausalLM

from edgeelad.config import TrainingConfig
from edgeelad.errors import TrainingError
from edgeelad.files import read_json, read_jsonl
from edgeelad.loop import distill
from edgeelad.progress import Silent
from edgeelad.quickstart.server import TeacherServer
from edgeelad.records import Example
from edgeelad.training import TrainingResult, fine_tune

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
EXAMPLES = [Example(*make_sum(a, b)) for a, b in SUMS[:24]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_student(tmp_path_factory.mktemp("cuda") / "base")


def train(base: Path, out: Path, **changes: Any) -> TrainingResult:
    settings = {"epochs": 6, "min_steps": 1, "batch_size": 8, "learning_rate": 2e-3, "device": "cuda", **changes}
    return fine_tune(base, EXAMPLES, out, TrainingConfig(**settings), 0)


def losses(result: TrainingResult) -> list[float]:
    return [loss for _, loss in result.losses]


def test_a_gpu_trains_as_a_cpu_does(base: Path, tmp_path: Path) -> None:
    found = {name: train(base, tmp_path / name, device=name, precision="fp32") for name in ("cpu", "cuda")}
    assert losses(found["cuda"]) == pytest.approx(losses(found["cpu"]), rel=1e-3)


def test_bfloat16_is_the_default_and_learns_the_same(base: Path, tmp_path: Path) -> None:
    exact = train(base, tmp_path / "fp32", precision="fp32")
    found = train(base, tmp_path / "auto")
    assert losses(found) != losses(exact)
    assert losses(found) == pytest.approx(losses(exact), rel=0.05)


def test_the_same_seed_gives_the_same_losses(base: Path, tmp_path: Path) -> None:
    assert train(base, tmp_path / "one").losses == train(base, tmp_path / "other").losses


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "lora", "lora_rank": 4, "learning_rate": 1e-2},
        {"gradient_checkpointing": True},
        {"gradient_accumulation": 2, "batch_size": 4},
        {"optimizer": "adamw_8bit"},
        {"held_out_share": 0.25},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_way_to_train_learns_on_a_gpu(base: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    if changes.get("optimizer") == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    result = train(base, tmp_path / "out", epochs=12, **changes)
    assert result.final_loss < 0.6 * result.first_loss
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_callers_random_state_is_left_alone(base: Path, tmp_path: Path) -> None:
    before = torch.cuda.get_rng_state()
    train(base, tmp_path / "out")
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_nothing_stays_on_the_gpu(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path / "first")
    before = torch.cuda.memory_allocated()  # cuBLAS keeps its workspace
    train(base, tmp_path / "second")
    assert torch.cuda.memory_allocated() == before


def test_memory_that_runs_out_is_an_error_that_says_what_to_change(base: Path, tmp_path: Path) -> None:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-5)
    try:
        with pytest.raises(TrainingError, match=r"not enough memory; halve training\.batch_size"):
            train(base, tmp_path / "out")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert not (tmp_path / "out").exists()
    train(base, tmp_path / "out")  # once there is memory again


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="there are several GPUs")
def test_more_processes_than_gpus_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"num_processes is 2, and torch sees 1 CUDA GPUs"):
        train(base, tmp_path / "out", num_processes=2)


def test_a_whole_run_trains_on_the_gpu(small_run: SmallRun, tmp_path: Path) -> None:
    torch.cuda.reset_peak_memory_stats()
    with TeacherServer() as server:
        distill(small_run.config(tmp_path / "run", server.url, "training.device=cuda"), Silent())
    assert torch.cuda.max_memory_allocated() > 0
    rounds = list(read_jsonl(tmp_path / "run" / "metrics.jsonl"))
    assert [row["round"] for row in rounds] == [0, 1, 2]
    assert read_json(tmp_path / "run" / "summary.json")["annotated"] > 0
    assert (tmp_path / "run" / "package" / "manifest.json").is_file()
