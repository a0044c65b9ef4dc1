"""Fine-tune a student with transformers' Trainer: full weights or a LoRA, merged before it is saved.

Takes a student folder and examples, returns a `TrainingResult` for the new student folder. Keeps no checkpoints and
reports to the `progress` callback only: a round is short, and an interrupted run fine-tunes again from the same base.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from edgeelad.config import TrainingConfig
from edgeelad.engine.codec import Codec
from edgeelad.errors import TrainingError
from edgeelad.files import make_folder
from edgeelad.records import Example
from edgeelad.text.prompts import PromptFormat
from edgeelad.training.encoder_decoder import SEQ2SEQ
from edgeelad.training.extra import distill_extra, quiet
from edgeelad.training.launcher import launched
from edgeelad.training.load import load_model, load_tokenizer
from edgeelad.training.result import TrainingResult
from edgeelad.training.save import refuse_existing, save_student
from edgeelad.training.schedule import hold_out, learning_rate, num_steps
from edgeelad.training.tensors import CAUSAL, EncodedExamples, InTurn, encode_examples

ProgressCallback = Callable[[int, int, float], None]
# "constant" alone would ignore the warm-up
SCHEDULERS = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_bnb_8bit"}
# rows of one length together: without it a 1M-parameter student spends 40 % of its time on padding
BY_LENGTH: dict[str, Any] = (
    {"train_sampling_strategy": "group_by_length"}
    if "train_sampling_strategy" in TrainingArguments.__dataclass_fields__  # transformers 5
    else {"group_by_length": True}
)
NUM_LOSS_REPORTS = 50  # the loss is read about this often: reading it makes a GPU wait
NUM_HELD_OUT_REPORTS = 10  # and that of the held-out examples


def fine_tune(
    base: Path,
    examples: Sequence[Example],
    out: Path,
    config: TrainingConfig,
    seed: int,
    progress: ProgressCallback | None = None,
) -> TrainingResult:
    """Fine-tune the student in `base` and save it in `out`; see `edgeelad.training.fine_tune`."""
    start = time.perf_counter()
    refuse_existing(out)
    with (
        quiet(),
        _seeded(seed, config.device),
        _own_precision(),
        TemporaryDirectory(prefix="edgeelad-training-") as scratch,
    ):
        # 1. examples to rows
        codec = Codec.load(base)
        tokenizer = load_tokenizer(str(base))
        eos_id = tokenizer.eos_token_id
        assert eos_id in codec.eos_ids, f"{base} was not made by prepare_student"
        layout = SEQ2SEQ if codec.is_encoder_decoder else CAUSAL
        encoded = encode_examples(examples, codec, eos_id, layout.make_row)
        _check_not_empty(encoded, base)
        rows, held_out = hold_out(encoded.rows, config.held_out_share, seed)
        # 2. train
        with _memory_errors():
            model = load_model(str(base))
            rate = learning_rate(config, model.num_parameters())
            arguments = _arguments(config, rate, len(rows), bool(held_out), seed, Path(scratch))
            watch = _Watch(rate, progress)
            multiple = 8 if arguments.device.type == "cuda" else 1  # of lengths
            trainer = Trainer(
                model=_trainable(model, config),
                args=arguments,
                train_dataset=InTurn(rows),
                eval_dataset=[row for row, *_ in held_out] or None,
                data_collator=lambda rows: layout.collate(rows, eos_id, multiple),
                callbacks=[watch],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        # 3. save, once
        trained = _gathered(trainer, base, config)
        if config.method == "lora":
            trained = trained.merge_and_unload()
        _check_finite(trained)
        if trainer.is_world_process_zero():
            prompt = PromptFormat.load(base)
            make_folder(out, lambda folder: save_student(folder, out, trained.cpu(), tokenizer, prompt))
        trainer.accelerator.wait_for_everyone()
        return TrainingResult(
            folder=out,
            num_examples=len(rows),
            skipped=encoded.skipped,
            num_steps=trainer.state.global_step,
            num_label_tokens=encoded.num_label_tokens,
            first_loss=watch.losses[0][1],
            final_loss=watch.losses[-1][1],
            seconds=time.perf_counter() - start,
            learning_rate=rate,
            num_held_out=len(held_out),
            losses=tuple(watch.losses),
            held_out_losses=tuple(watch.held_out_losses),
        )


def _check_not_empty(encoded: EncodedExamples, base: Path) -> None:
    if encoded.rows:
        return
    if encoded.skipped:
        first = encoded.skipped[0]
        raise TrainingError(
            f"nothing to train on: all {len(encoded.skipped)} examples are too long for {base}, "
            f"the first ({first.question_id}): {first.reason}; choose a student with a longer context"
        )
    raise TrainingError("nothing to train on: no examples; annotate some questions or set training.seed_examples")


def _arguments(
    config: TrainingConfig, rate: float, num_rows: int, has_held_out: bool, seed: int, scratch: Path
) -> TrainingArguments:
    """Trainer's arguments: no output, no checkpoints, no worker processes for rows that are in memory."""
    has_gpu = torch.cuda.is_available()
    on_gpu = has_gpu and config.device != "cpu"
    is_bf16 = config.precision == "bf16" or (
        config.precision == "auto" and on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    together = launched()
    num_processes = 1 if together is None else together.num_processes
    is_sharded = config.fsdp and num_processes > 1
    max_steps = num_steps(config, num_rows, num_processes)
    arguments = TrainingArguments(
        output_dir=str(scratch),
        max_steps=max_steps,
        # batches are drawn as one process would draw larger ones, and divided among the processes
        per_device_train_batch_size=config.batch_size * num_processes,
        per_device_eval_batch_size=config.batch_size * num_processes,
        accelerator_config={"split_batches": True},
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=rate,
        lr_scheduler_type=SCHEDULERS[config.schedule],
        warmup_steps=math.ceil(config.warmup_share * max_steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim=OPTIMIZERS[config.optimizer],
        gradient_checkpointing=config.gradient_checkpointing and not is_sharded,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        fsdp="full_shard auto_wrap" if is_sharded else "",
        fsdp_config=_sharding(config) if is_sharded else None,
        seed=seed,
        data_seed=seed,
        use_cpu=config.device == "cpu" or not (has_gpu or torch.backends.mps.is_available()),
        bf16=is_bf16,
        **BY_LENGTH,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=on_gpu,
        ddp_find_unused_parameters=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        eval_strategy="steps" if has_held_out else "no",
        eval_steps=max(1, max_steps // NUM_HELD_OUT_REPORTS),
        eval_on_start=has_held_out,
        prediction_loss_only=True,
        logging_steps=max(1, max_steps // NUM_LOSS_REPORTS),
        logging_first_step=True,
        logging_nan_inf_filter=False,  # a loss that is not finite is an error here
    )
    if arguments.n_gpu > 1:  # without torchrun: one GPU, for DataParallel would change the batch and the result
        arguments._n_gpu = 1
    return arguments


def _sharding(config: TrainingConfig) -> dict[str, bool]:
    # every process has loaded the weights, so none has to be sent them
    return {"activation_checkpointing": config.gradient_checkpointing, "sync_module_states": False}


def _trainable(model: PreTrainedModel, config: TrainingConfig) -> Any:
    return _with_adapters(model, config) if config.method == "lora" else model


def _gathered(trainer: Trainer, base: Path, config: TrainingConfig) -> Any:
    """The trained model; if it is divided among processes, a whole one with its weights in the first process."""
    if not trainer.is_fsdp_enabled:
        return trainer.accelerator.unwrap_model(trainer.model)
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # all processes take part
    whole = _trainable(load_model(str(base)), config)
    if trainer.is_world_process_zero():
        whole.load_state_dict(state)
    return whole


def _with_adapters(model: PreTrainedModel, config: TrainingConfig) -> Any:
    with distill_extra("training.method = lora"):
        from peft import LoraConfig, get_peft_model
    return get_peft_model(
        model,
        LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules="all-linear",
            task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
        ),
    )


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Say what to change where memory runs out: a GPU's may do so when the student is moved there."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # the CPU's allocator raises a plain RuntimeError
        is_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)
        if not is_memory:
            raise
        raise TrainingError(
            "not enough memory; halve training.batch_size and double training.gradient_accumulation, or set "
            "training.gradient_checkpointing, and resume"
        ) from error


class _Watch(TrainerCallback):
    """Keeps the losses, reports progress, and ends a training whose loss is not finite."""

    def __init__(self, rate: float, progress: ProgressCallback | None) -> None:
        self.rate = rate
        self.progress = progress
        self.losses: list[tuple[int, float]] = []
        self.held_out_losses: list[tuple[int, float]] = []

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Report a step, unless `on_log` is about to; the loss is read after the last step too."""
        is_last = state.global_step >= state.max_steps
        control.should_log = control.should_log or is_last
        control.should_evaluate = control.should_evaluate or (is_last and args.eval_strategy != "no")
        if self.progress is not None and not control.should_log:
            self.progress(state.global_step, state.max_steps, self.losses[-1][1])

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any) -> None:
        """Keep a loss that was read."""
        if "eval_loss" in logs:
            self.held_out_losses.append((state.global_step, logs["eval_loss"]))
        loss = logs.get("loss")
        if loss is None:  # the closing summary
            return
        if not (math.isfinite(loss) and math.isfinite(logs.get("grad_norm", 0.0))):
            raise TrainingError(
                f"the loss is {loss} and its gradient {logs.get('grad_norm')} at step {state.global_step} of "
                f"{state.max_steps}; lower training.learning_rate (now {self.rate:.1e})"
            )
        self.losses.append((state.global_step, loss))
        if self.progress is not None:
            self.progress(state.global_step, state.max_steps, loss)


def _check_finite(model: PreTrainedModel) -> None:
    """Refuse weights that are not finite: the losses do not show what the last update did."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise TrainingError(f"weight {name} is not finite after training; lower training.learning_rate")


@contextmanager
def _own_precision() -> Iterator[None]:
    """Restore the environment variable in which TrainingArguments leaves the precision."""
    name = "ACCELERATE_MIXED_PRECISION"
    before = os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


@contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    """Seed every global generator that Trainer and torch draw from; restore their states at the end."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002  # Trainer's set_seed seeds this one
    # by default a process takes memory on every GPU that it sees, to keep its generator's state
    is_on_gpu = torch.cuda.is_available() and device != "cpu" and launched() is None
    with torch.random.fork_rng([torch.cuda.current_device()] if is_on_gpu else []):
        set_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002
