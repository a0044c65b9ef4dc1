"""Fine-tuning: it learns, it is reproducible, it says what it did, and what it cannot do."""

import contextlib
import hashlib
import importlib.util
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.students import SUMS, make_student, make_sum
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, Trainer

from edgeelad.config import TrainingConfig
from edgeelad.errors import ModelError, StorageError, TrainingError
from edgeelad.records import Example, Question
from edgeelad.text.prompts import PromptFormat
from edgeelad.training import fine_tune

EXAMPLES = [Example(*make_sum(a, b)) for a, b in SUMS[:24]]
TOO_LONG = Example(Question("long", "What is " + "1 + " * 100 + "1?"), ("Add.",), "101")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_student(tmp_path_factory.mktemp("training") / "base")


def settings(**changes: Any) -> TrainingConfig:
    return TrainingConfig(
        **{"epochs": 2, "min_steps": 1, "batch_size": 8, "learning_rate": 2e-3, "device": "cpu", **changes}
    )


def _names(folder: Path) -> set[str]:
    """Names of a folder's files; transformers 5 keeps the special tokens in tokenizer_config.json."""
    return {path.name for path in folder.iterdir()} - {"special_tokens_map.json"}


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    return state


def test_the_loss_falls_and_the_result_says_what_was_done(base: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, float]] = []
    result = fine_tune(
        base, EXAMPLES, tmp_path / "out", settings(epochs=12), 0, lambda *step: seen.append(step)
    )  # 24 examples, 8 a step, 12 epochs
    assert result.num_steps == 36
    assert result.num_examples == 24
    assert result.num_skipped == 0
    assert result.folder == tmp_path / "out"
    assert result.final_loss < 0.5 * result.first_loss
    assert [step for step, _, _ in seen] == list(range(1, 37))
    assert {total for _, total, _ in seen} == {36}
    assert seen[0][2] == result.first_loss
    assert seen[-1][2] == result.final_loss
    assert 0 < result.seconds < 600


def test_the_saved_student_is_whole_and_computes_what_was_trained(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fine_tune(base, EXAMPLES, out, settings(), 0)
    assert _names(out) == _names(base)
    assert PromptFormat.load(out) == PromptFormat.load(base)
    ours, theirs = (json.loads((folder / "tokenizer.json").read_text()) for folder in (out, base))
    # transformers 5 writes a post-processor that adds nothing for none
    assert {**ours, "post_processor": None} == {**theirs, "post_processor": None}
    before, after = weights(base), weights(out)
    assert before.keys() == after.keys()
    assert not any(torch.equal(before[name], after[name]) for name in before)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # nothing temporary is left


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(base: Path, tmp_path: Path) -> None:
    runs = {"first": 3, "again": 3, "other": 4}
    for name, seed in runs.items():
        random.seed(name)  # what was drawn before does not matter
        torch.manual_seed(len(name))
        fine_tune(base, EXAMPLES, tmp_path / name, settings(), seed)
    assert digest(tmp_path / "first") == digest(tmp_path / "again")
    assert digest(tmp_path / "first") != digest(tmp_path / "other")


def test_the_callers_random_state_is_left_alone(base: Path, tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    expected = draw()
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    fine_tune(base, EXAMPLES, tmp_path / "out", settings(), 0)
    assert draw() == expected


def test_a_lora_is_merged_into_a_plain_model(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = settings(method="lora", lora_rank=4, lora_alpha=8.0, epochs=6, learning_rate=1e-2)
    result = fine_tune(base, EXAMPLES, out, config, 0)
    assert result.final_loss < result.first_loss
    assert _names(out) == _names(base)
    assert "peft" not in (out / "config.json").read_text()
    before, after = weights(base), weights(out)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    linear = {name for name in before if name.endswith("_proj.weight")}
    assert changed == linear  # all linear layers of all blocks, and neither embeddings nor norms
    for name in linear:
        assert np.linalg.matrix_rank((after[name] - before[name]).numpy(), tol=1e-4) <= 4


def test_a_lora_is_as_reproducible(base: Path, tmp_path: Path) -> None:
    config = settings(method="lora", lora_dropout=0.1)
    for name in ("first", "again"):
        fine_tune(base, EXAMPLES, tmp_path / name, config, 5)
    assert digest(tmp_path / "first") == digest(tmp_path / "again")


def test_examples_that_do_not_fit_are_counted_and_named(base: Path, tmp_path: Path) -> None:
    result = fine_tune(base, [*EXAMPLES[:8], TOO_LONG], tmp_path / "out", settings(), 0)
    assert (result.num_examples, result.num_skipped) == (8, 1)
    assert result.skipped[0].question_id == "long"
    assert "context of 128" in result.skipped[0].reason


def test_nothing_to_train_on_is_an_error_that_says_why(base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no examples; annotate some questions"):
        fine_tune(base, [], tmp_path / "out", settings(), 0)
    with pytest.raises(TrainingError, match=r"all 1 examples are too long.*\(long\)"):
        fine_tune(base, [TOO_LONG], tmp_path / "out", settings(), 0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("learning_rate", [1e12, 1e30])
def test_a_loss_that_is_not_finite_ends_the_training(base: Path, tmp_path: Path, learning_rate: float) -> None:
    config = settings(learning_rate=learning_rate, epochs=20, warmup_share=0.0)
    with pytest.raises(TrainingError, match=r"lower training\.learning_rate"):
        fine_tune(base, EXAMPLES, tmp_path / "out", config, 0)
    assert list(tmp_path.iterdir()) == []


def test_steps_and_accumulation_are_as_configured(base: Path, tmp_path: Path) -> None:
    by_steps = fine_tune(base, EXAMPLES, tmp_path / "steps", settings(max_steps=5), 0)
    assert by_steps.num_steps == 5
    accumulated = settings(batch_size=4, gradient_accumulation=3, epochs=2)  # 24 examples, 12 a step
    assert fine_tune(base, EXAMPLES, tmp_path / "accumulated", accumulated, 0).num_steps == 4
    half = fine_tune(base, EXAMPLES, tmp_path / "half", settings(epochs=0.5, batch_size=4), 0)
    assert half.num_steps == 3


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_every_schedule_trains(base: Path, tmp_path: Path, schedule: str) -> None:
    result = fine_tune(base, EXAMPLES, tmp_path / "out", settings(schedule=schedule, epochs=6), 0)
    assert result.final_loss < result.first_loss


def test_a_constant_schedule_warms_up(base: Path, tmp_path: Path) -> None:
    config = {"schedule": "constant", "max_steps": 1, "learning_rate": 1e-2}
    fine_tune(base, EXAMPLES, tmp_path / "warm", settings(warmup_share=1.0, **config), 0)
    fine_tune(base, EXAMPLES, tmp_path / "cold", settings(warmup_share=0.0, **config), 0)
    assert digest(tmp_path / "warm") == digest(base)  # the first step of a warm-up has a rate of zero
    assert digest(tmp_path / "cold") != digest(base)


def test_bfloat16_on_the_cpu_and_float32_after_it_in_one_process(base: Path, tmp_path: Path) -> None:
    bf16 = fine_tune(base, EXAMPLES, tmp_path / "bf16", settings(precision="bf16", epochs=6), 0)
    fp32 = fine_tune(base, EXAMPLES, tmp_path / "fp32", settings(precision="fp32", epochs=6), 0)
    assert bf16.final_loss < bf16.first_loss
    assert bf16.final_loss == pytest.approx(fp32.final_loss, rel=0.1)
    fine_tune(base, EXAMPLES, tmp_path / "again", settings(precision="auto", epochs=6), 0)
    assert digest(tmp_path / "fp32") == digest(tmp_path / "again") != digest(tmp_path / "bf16")
    assert {tensor.dtype for tensor in weights(tmp_path / "bf16").values()} == {torch.float32}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error(base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"training\.device is cuda"):
        fine_tune(base, EXAMPLES, tmp_path / "out", settings(device="cuda"), 0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_is_used_in_bfloat16_by_itself(base: Path, tmp_path: Path) -> None:
    result = fine_tune(base, EXAMPLES, tmp_path / "out", settings(device="auto", epochs=12), 0)
    assert result.final_loss < 0.5 * result.first_loss
    assert {tensor.dtype for tensor in weights(tmp_path / "out").values()} == {torch.float32}


def test_the_defaults_teach_a_small_student_what_few_examples_show(base: Path, tmp_path: Path) -> None:
    result = fine_tune(base, EXAMPLES, tmp_path / "out", TrainingConfig(device="cpu"), 0)
    assert result.num_steps == 100
    assert result.learning_rate == 2e-3
    assert result.final_loss < 0.3 * result.first_loss
    assert result.num_held_out == 0  # too few to spare one
    assert [step for step, _ in result.losses] == [1, *range(2, 101, 2)]


def test_the_loss_of_held_out_examples_is_watched_from_before_the_first_step(base: Path, tmp_path: Path) -> None:
    examples = [Example(*make_sum(a, b)) for a, b in SUMS[:60]]
    result = fine_tune(base, examples, tmp_path / "out", settings(held_out_share=0.1, epochs=10), 0)
    assert (result.num_examples, result.num_held_out) == (54, 6)
    assert result.num_steps == 70
    assert [step for step, _ in result.held_out_losses] == list(range(0, 71, 7))
    assert result.held_out_losses[-1][1] < 0.7 * result.held_out_losses[0][1]
    assert result.warning is None
    timid = settings(held_out_share=0.1, epochs=1, learning_rate=1e-6)
    hardly = fine_tune(base, examples, tmp_path / "hardly", timid, 0).warning
    assert hardly is not None
    assert "hardly learned" in hardly
    assert "training.learning_rate, training.epochs or training.min_steps" in hardly


def test_nothing_is_written_to_the_screen(base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fine_tune(base, EXAMPLES, tmp_path / "full", settings(), 0)
    fine_tune(base, EXAMPLES, tmp_path / "lora", settings(method="lora"), 0)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_base_that_is_no_student_and_a_folder_that_is_there_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        fine_tune(tmp_path / "nothing", EXAMPLES, tmp_path / "out", settings(), 0)
    (tmp_path / "there").mkdir()
    with pytest.raises(StorageError, match="already exists"):
        fine_tune(base, EXAMPLES, tmp_path / "there", settings(), 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        fine_tune(base, EXAMPLES, tmp_path / "file" / "out", settings(), 0)


def test_a_full_disk_is_an_error_that_names_the_folder(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", fail)
    with pytest.raises(StorageError, match=r"out: cannot be written: .*No space left on device.*free some space"):
        fine_tune(base, EXAMPLES, tmp_path / "out", settings(), 0)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_callback_is_not_swallowed(base: Path, tmp_path: Path) -> None:
    def interrupt(step: int, total: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fine_tune(base, EXAMPLES, tmp_path / "out", settings(), 0, interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["__init__", "train"])  # the former moves the student to a GPU
@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_memory_that_runs_out_is_an_error_that_says_what_to_change(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, where: str
) -> None:
    def fail(trainer: Trainer, **_: Any) -> None:
        raise error

    monkeypatch.setattr(Trainer, where, fail)
    with pytest.raises(TrainingError, match=r"not enough memory; halve training\.batch_size .* and resume"):
        fine_tune(base, EXAMPLES, tmp_path / "out", settings(), 0)


def test_two_processes_train_as_one_with_twice_the_batch(base: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, float]] = []
    out = tmp_path / "out" / "student"
    together = fine_tune(
        base, EXAMPLES, out, settings(batch_size=4, num_processes=2), 0, lambda *step: seen.append(step)
    )
    alone = fine_tune(base, EXAMPLES, tmp_path / "alone", settings(batch_size=8), 0)
    assert [step for step, _, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert [path.name for path in out.parent.iterdir()] == ["student"]
    assert (together.num_steps, together.num_examples, together.folder) == (6, 24, out)
    assert np.array(together.losses) == pytest.approx(np.array(alone.losses), rel=1e-4)
    ours, theirs, before = weights(out), weights(tmp_path / "alone"), weights(base)
    moved = sum(float((theirs[name] - value).abs().sum()) for name, value in before.items())
    apart = sum(float((theirs[name] - value).abs().sum()) for name, value in ours.items())
    assert apart < 0.01 * moved


def test_processes_that_train_on_the_cpu_see_no_gpu(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StartedError(Exception):
        pass

    def start(command: list[str], env: dict[str, str], **_: Any) -> None:
        raise StartedError(env.get("CUDA_VISIBLE_DEVICES"))

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # on one GPU two processes are refused
    monkeypatch.setattr(subprocess, "Popen", start)
    for device, seen in (("cpu", ""), ("auto", "0")):
        with pytest.raises(StartedError) as caught:
            fine_tune(base, EXAMPLES, tmp_path / "out", settings(device=device, num_processes=2), 0)
        assert caught.value.args == (seen,)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose name is in the command line of every training process that this test starts."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def processes(scratch: Path, module: str = "") -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = path.read_text()
            if str(scratch) in command and module in command:
                found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
@pytest.mark.parametrize("who", ["a worker", "the launcher", "Ctrl-C"])
def test_no_training_process_outlives_its_run(base: Path, tmp_path: Path, scratch: Path, who: str) -> None:
    def interrupt(step: int, total: int, loss: float) -> None:
        if who == "Ctrl-C":
            raise KeyboardInterrupt
        if step == 1:  # other steps may have been reported before the signal
            launcher = processes(scratch, "torch.distributed.run")
            workers = [pid for pid in processes(scratch) if pid not in launcher]
            assert (len(launcher), len(workers)) == (1, 2)
            os.kill((workers if who == "a worker" else launcher)[0], signal.SIGKILL)

    config = settings(batch_size=4, num_processes=2, max_steps=100_000)
    with pytest.raises(KeyboardInterrupt if who == "Ctrl-C" else TrainingError) as caught:
        fine_tune(base, EXAMPLES, tmp_path / "out", config, 0, interrupt)
    if who != "Ctrl-C":
        assert "a training process was killed (signal 9)" in str(caught.value)
        assert "lower training.batch_size" in str(caught.value)
    assert processes(scratch) == []
    assert list(scratch.iterdir()) == []
    assert not (tmp_path / "out").exists()


KILLED = """
import os, signal, sys, tempfile
from pathlib import Path
from types import ModuleType
sys.path[:0] = {path!r}
from fixtures.students import SUMS, make_sum
from edgeelad.config import TrainingConfig
from edgeelad.records import Example
from edgeelad.training import fine_tune

def die(step, total, loss):
    print(*(path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if {scratch!r} in path.read_text()))
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)

tempfile.tempdir = {scratch!r}
examples = [Example(*make_sum(a, b)) for a, b in SUMS[:24]]
config = TrainingConfig(max_steps=100_000, batch_size=4, device="cpu", num_processes=2)
fine_tune(Path({base!r}), examples, Path({scratch!r}, "out"), config, 0, die)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
def test_training_processes_end_with_a_run_that_is_killed(base: Path, scratch: Path) -> None:
    script = KILLED.format(path=[str(Path(__file__).parents[1])], base=str(base), scratch=str(scratch))
    killed = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert killed.returncode == -signal.SIGKILL
    pids = [int(pid) for pid in killed.stdout.split()]
    assert len(pids) >= 3
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            ended, _, _ = select.select([descriptor], [], [], 60)
            os.close(descriptor)
            assert ended, f"process {pid} is still running"


def test_errors_of_a_training_process_are_those_of_training_alone(base: Path, tmp_path: Path) -> None:
    config = settings(num_processes=2, learning_rate=1e30, epochs=20, warmup_share=0.0)
    with pytest.raises(TrainingError, match=r"lower training\.learning_rate"):
        fine_tune(base, EXAMPLES, tmp_path / "out", config, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "adamw_8bit"}, "adamw_8bit needs bitsandbytes, .* pip install bitsandbytes"),
        ({"report_to": ["trackio"]}, "training.report_to needs trackio, which is not installed; pip install trackio"),
    ],
)
def test_what_the_machine_lacks_is_said_at_once(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    found = importlib.util.find_spec
    lacks = {"trackio", "bitsandbytes"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in lacks else found(name))
    with pytest.raises(TrainingError, match=message):
        fine_tune(base, EXAMPLES, tmp_path / "out", settings(**change), 0)


def test_bitsandbytes_that_needs_a_gpu_is_refused_without_one(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found("json" if name == "bitsandbytes" else name))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", ModuleType("bitsandbytes.optim"))  # without AdamW8bit
    with pytest.raises(TrainingError, match=r"needs a CUDA GPU; upgrade it, or use adamw"):
        fine_tune(base, EXAMPLES, tmp_path / "out", settings(optimizer="adamw_8bit", device="cpu"), 0)


def test_an_8_bit_optimizer_learns_as_one_of_32_bits(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    losses = [
        [loss for _, loss in fine_tune(base, EXAMPLES, tmp_path / name, settings(optimizer=name), 0).losses]
        for name in ("adamw", "adamw_8bit")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_gradient_checkpointing_changes_no_weight(base: Path, tmp_path: Path) -> None:
    for is_used in (False, True):
        fine_tune(base, EXAMPLES, tmp_path / str(is_used), settings(gradient_checkpointing=is_used), 0)
    assert digest(tmp_path / "True") == digest(tmp_path / "False")
