"""Fine-tune a student with transformers' Trainer: full weights or a LoRA, merged before it is saved.

Takes a student folder and examples, gives a student folder and a `TrainingResult`. Keeps no checkpoints and reports to
nobody but the `progress` callback: a round is short, and a run that is killed fine-tunes again from the same base.
"""

from __future__ import annotations

import functools
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
from edgeelad.training.extra import distill_extra, quiet
from edgeelad.training.load import load_model, load_tokenizer
from edgeelad.training.result import TrainingResult
from edgeelad.training.save import refuse_existing, save_student
from edgeelad.training.tensors import EncodedExamples, collate, encode_examples

ProgressCallback = Callable[[int, int, float], None]
# "constant" alone would ignore the warm-up
SCHEDULERS = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
NUM_LOSS_REPORTS = 50  # the loss is read about this often: reading it makes a GPU wait


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
    with quiet(), _seeded(seed), _own_precision(), TemporaryDirectory(prefix="edgeelad-training-") as scratch:
        # 1. examples to rows
        codec = Codec.load(base)
        tokenizer = load_tokenizer(str(base))
        eos_id = tokenizer.eos_token_id
        assert eos_id in codec.eos_ids, f"{base} was not made by prepare_student"
        encoded = encode_examples(examples, codec, eos_id)
        _check_not_empty(encoded, base)
        # 2. train
        arguments = _arguments(config, len(encoded.rows), seed, Path(scratch))
        model = load_model(str(base))
        watch = _Watch(config, progress)
        trainer = Trainer(
            model=_with_adapters(model, config) if config.method == "lora" else model,
            args=arguments,
            train_dataset=encoded.rows,
            data_collator=functools.partial(
                collate, pad_id=eos_id, multiple=8 if arguments.device.type == "cuda" else 1
            ),
            callbacks=[watch],
        )
        trainer.remove_callback(PrinterCallback)
        _train(trainer)
        # 3. save, once
        trained = trainer.accelerator.unwrap_model(trainer.model)
        if config.method == "lora":
            trained = trained.merge_and_unload()
        _check_finite(trained)
        if trainer.is_world_process_zero():
            prompt = PromptFormat.load(base)
            make_folder(out, lambda folder: save_student(folder, out, trained.cpu(), tokenizer, prompt))
        trainer.accelerator.wait_for_everyone()
        return TrainingResult(
            folder=out,
            num_examples=len(encoded.rows),
            skipped=encoded.skipped,
            num_steps=trainer.state.global_step,
            num_label_tokens=encoded.num_label_tokens,
            first_loss=watch.first_loss,
            final_loss=watch.last_loss,
            seconds=time.perf_counter() - start,
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


def _arguments(config: TrainingConfig, num_rows: int, seed: int, scratch: Path) -> TrainingArguments:
    """Trainer's arguments: nothing on the screen, nothing on disk, no worker processes for rows that are in memory."""
    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        raise TrainingError("training.device is cuda, and torch sees no CUDA GPU; use auto or cpu")
    on_gpu = has_gpu and config.device != "cpu"
    is_bf16 = config.precision == "bf16" or (
        config.precision == "auto" and on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    steps_an_epoch = max(1, num_rows // (config.batch_size * config.gradient_accumulation))
    num_steps = config.max_steps or math.ceil(steps_an_epoch * config.epochs)
    arguments = TrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type=SCHEDULERS[config.schedule],
        warmup_ratio=config.warmup_share,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused",
        seed=seed,
        data_seed=seed,
        use_cpu=config.device == "cpu" or not (has_gpu or torch.backends.mps.is_available()),
        bf16=is_bf16,
        # rows of one length together: without it a 1M-parameter student spends 40 % of its time on padding
        group_by_length=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=on_gpu,
        ddp_find_unused_parameters=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=max(1, num_steps // NUM_LOSS_REPORTS),
        logging_first_step=True,
        logging_nan_inf_filter=False,  # a loss that is not finite is an error here, nothing to smooth over
    )
    if arguments.n_gpu > 1:  # without torchrun: one GPU, for DataParallel would change the batch and the result
        arguments._n_gpu = 1
    return arguments


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
            task_type="CAUSAL_LM",
        ),
    )


def _train(trainer: Trainer) -> None:
    try:
        trainer.train()
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "not enough GPU memory; halve training.batch_size and double training.gradient_accumulation"
        ) from error


class _Watch(TrainerCallback):
    """Tells of progress, and ends a training whose loss is not finite."""

    def __init__(self, config: TrainingConfig, progress: ProgressCallback | None) -> None:
        self.config = config
        self.progress = progress
        self.first_loss = math.nan
        self.last_loss = math.nan

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A step is done; the loss is read after the last one too. Where it is read now, `on_log` tells of the step."""
        control.should_log = control.should_log or state.global_step >= state.max_steps
        if self.progress is not None and not control.should_log:
            self.progress(state.global_step, state.max_steps, self.last_loss)

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any) -> None:
        """The loss was read."""
        loss = logs.get("loss")
        if loss is None:  # the closing summary
            return
        if not (math.isfinite(loss) and math.isfinite(logs.get("grad_norm", 0.0))):
            raise TrainingError(
                f"the loss is {loss} and its gradient {logs.get('grad_norm')} at step {state.global_step} of "
                f"{state.max_steps}; lower training.learning_rate (now {self.config.learning_rate})"
            )
        if math.isnan(self.first_loss):
            self.first_loss = loss
        self.last_loss = loss
        if self.progress is not None:
            self.progress(state.global_step, state.max_steps, loss)


def _check_finite(model: PreTrainedModel) -> None:
    """Refuse weights that are not finite: the last steps' losses are seen, what the last update did is not."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise TrainingError(f"weight {name} is not finite after training; lower training.learning_rate")


@contextmanager
def _own_precision() -> Iterator[None]:
    """Keep the precision of one training from the next: TrainingArguments leaves it in the environment."""
    name = "ACCELERATE_MIXED_PRECISION"
    before = os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed every global generator that Trainer and torch draw from, and put back what was there before."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002  # Trainer's set_seed seeds this one
    with torch.random.fork_rng():
        set_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002
