"""One task on one seed: the base student, the shared first round, detection at rounds 0 and 1, and the learning arms.

Works with the product's own parts (preparation, export, engine, strategies, selection, annotation, fine-tuning); what a
stage of it has made is kept in the work folder, so that a killed study resumes.
"""

from __future__ import annotations

import gzip
import pickle
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arms import ASKED_ONLY, PRETRAINED_UPDATES, batch_sizes, has_answers, way_of
from tasks import Task
from teacher import ReferenceTeacher
from torch_generator import TorchGenerator

from edgeelad.accuracy import evaluate
from edgeelad.config import ExportConfig, ScoringConfig, SelectionConfig, StudentConfig, TeacherConfig, TrainingConfig
from edgeelad.engine.codec import Codec
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.student import Student
from edgeelad.engine.tree import TreeParams
from edgeelad.export import export_student
from edgeelad.quickstart.student import train_base_student
from edgeelad.records import Annotation, Example, Question, ReasoningTree
from edgeelad.selection import select
from edgeelad.selection.odds import Neighborhood, corrected
from edgeelad.selection.ranking import Floats
from edgeelad.teacher.plan.own_examples import in_other_words, own_examples, room_for_own, sampling_params
from edgeelad.teacher.plan.plan import Planned, Planner
from edgeelad.teacher.protocol import abilities_of
from edgeelad.teacher.revision.annotate import annotate
from edgeelad.text.answers import agree
from edgeelad.training import fine_tune, prepare_student
from edgeelad.uncertainty import RiskModel, score, tree_params
from edgeelad.uncertainty.risk import features, fit, risk_of
from edgeelad.uncertainty.traces import step_traces

NUM_EXPLANATIONS = 12  # of `disagreement` at its most expensive


class Study:
    """A task on a seed, in a work folder of its own.

    Args:
        task: The task.
        folder: Its work folder.
        seed: The task's.
        pretrained: A checkpoint to teach the known kinds, in place of a student from scratch.
        updates: Optimizer steps per round of a pretrained student.
    """

    def __init__(
        self, task: Task, folder: Path, seed: int, pretrained: Path | None = None, updates: int = PRETRAINED_UPDATES
    ) -> None:
        self.folder, self.seed, self.pretrained, self.updates = folder, seed, pretrained, updates
        # more tokens say the same where a number has several
        self.task = task if pretrained is None else replace(task, max_tokens=task.max_tokens * 3 // 2)
        self.pool = {question.id: question for question in task.pool}
        self.options = EngineOptions(num_threads=1)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"

    # --- students ---

    @property
    def base(self) -> Path:
        """The base student, trained on the known kinds."""
        raw, out = self.folder / "raw", self.folder / "student-0"
        if out.exists():
            return out
        shutil.rmtree(raw, ignore_errors=True)
        if self.pretrained is not None:
            prepare_student(str(self.pretrained), raw, StudentConfig(model=str(self.pretrained)))
            fine_tune(raw, self._known(), out, self._training, self.seed)
            return out
        problems, recipe = self.task.base_problems, self.task.recipe
        train_base_student(problems, raw, self.seed, recipe=recipe, more_texts=self.task.texts, device=self.device)
        prepare_student(str(raw), out, StudentConfig(model=str(raw)))
        return out

    def open(self, student: Path) -> Student:
        """A student to generate with: on a GPU if there is one, else its export."""
        if self.device == "cuda":
            return Student(Codec.load(student), TorchGenerator(student), len(self.pool))
        return Student.open(self.graphs(student), self.options)

    def graphs(self, student: Path) -> Path:
        """The exported folder of a student; all but the base student's are made by swapping weights."""
        out = student.with_name(student.name.replace("student", "onnx"))
        if not out.exists():
            base = self.base.with_name("onnx-0")
            previous = base if base.exists() else None
            questions = list(self.pool.values())[:2]
            export_student(student, out, ExportConfig(quantize="none"), parity_questions=questions, previous=previous)
        return out

    def taught(self, name: str, examples: Sequence[Example]) -> Path:
        """The base student fine-tuned on examples and on a sample of the seed examples."""
        out = self.folder / f"student-{name}"
        if not out.exists():
            fine_tune(self.base, [*self._known(), *examples], out, self._training, self.seed)
        return out

    def _known(self) -> list[Example]:
        """A sample of the seed examples."""
        rng = np.random.default_rng([self.seed, 5])
        examples = self.task.seed_examples
        mixed = rng.choice(len(examples), min(self.task.sizes.num_seed_examples, len(examples)), replace=False)
        return [examples[i] for i in sorted(mixed)]

    @property
    def _training(self) -> TrainingConfig:
        if self.pretrained is not None:  # its learning rate is the product's, by its size
            return TrainingConfig(max_steps=self.updates, batch_size=16, held_out_share=0.0)
        return TrainingConfig(
            max_steps=self.task.sizes.updates, batch_size=16, learning_rate=2e-3, schedule="linear", held_out_share=0.0
        )

    def accuracy(self, student: Path) -> float:
        """Its accuracy on the test questions."""
        with self.open(student) as opened:
            trees = opened.explain(self.task.test, self.task.max_tokens)
        return evaluate(trees, self.task.test).accuracy

    # --- the first round, which all arms share ---

    def first_batch(self) -> list[Question]:
        """The questions of round 1, drawn at random: the same in all arms of a seed."""
        rng = np.random.default_rng([self.seed, 1])
        return [self.task.pool[i] for i in rng.choice(len(self.task.pool), self.task.sizes.batches[0], replace=False)]

    def first_student(self) -> Path:
        """The student after round 1: taught the first batch in full rationales."""
        return self.taught("1", [Example(q, q.explanation or (), q.answer or "") for q in self.first_batch()])

    # --- detection ---

    def trees(self, number: int) -> list[ReasoningTree]:
        """Trees of the whole pool with all that any strategy needs, by the student before or after round 1."""
        path = self.folder / f"trees-{number}.pickle.gz"
        if not path.exists():
            params = TreeParams(
                num_branches=3,
                num_root_branches=NUM_EXPLANATIONS,
                temperature=0.7,
                top_k=0,
                top_p=1.0,
                max_explanation_tokens=self.task.max_tokens,
                max_branch_tokens=self.task.max_tokens,
                probe=self.pretrained is None,
                seed=self.seed + number,
                num_removal_branches=3,
            )
            student = self.base if number == 0 else self.first_student()
            # `probe` forces tokens, which the engine alone can
            is_probed = params.probe
            with Student.open(self.graphs(student), self.options) if is_probed else self.open(student) as opened:
                found = list(opened.generate_trees(self.task.pool, params))
            partial = path.with_suffix(".partial")
            with gzip.open(partial, "wb", compresslevel=3) as file:
                pickle.dump(found, file)
            partial.rename(path)
        with gzip.open(path, "rb") as file:
            return list(pickle.load(file))

    # --- learning ---

    def arm(self, strategy: str, mode: str, done: Callable[[int], bool]) -> Iterator[dict[str, Any]]:
        """The rounds of one arm, each as a row of results; rounds that are `done` are not measured again."""
        name = f"{strategy}-{mode}"
        annotations: list[Annotation] = []
        history: list[tuple[tuple[float, ...], bool]] = []
        student_tokens, teacher = 0, ReferenceTeacher(self.pool, self.task.first_flaw)
        student = self.base
        sizes = batch_sizes(self.task.sizes, mode, len(self.pool))
        for number, size in enumerate(sizes, start=1):
            start = time.monotonic()
            rng = np.random.default_rng([self.seed, number, 3])
            with self.open(student) as opened:
                left = [q for q in self.task.pool if q.id not in {a.question_id for a in annotations}]
                model = fit([f for f, _ in history], [wrong for _, wrong in history])
                is_taught_own = has_answers(mode) and not mode.endswith(ASKED_ONLY)
                explained: list[ReasoningTree] = []
                if strategy != "random" and (number > 1 or is_taught_own):
                    params = tree_params(strategy, self._scoring, self.seed + number)
                    explained = list(opened.generate_trees(left, params))
                    student_tokens += sum(tree.tokens.generated for tree in explained)
                told = self._told(explained, model) if has_answers(mode) else {}
                if number == 1:
                    batch = self.first_batch()
                else:
                    batch = self._choose(explained, strategy, mode, left, annotations, model, rng, size)
                # full rationales are bought without the student's branches
                params = tree_params("risk" if mode == "rationale" else "elad", self._scoring, self.seed + number)
                trees = {tree.question.id: tree for tree in opened.generate_trees(batch, params)}
                config = TeacherConfig(kind="dataset", mode=way_of(mode), max_concurrency=1)  # type: ignore[arg-type]
                hidden = [replace(q, answer=q.answer if has_answers(mode) else None, explanation=None) for q in batch]

                def continue_from(items: Sequence[tuple[Question, tuple[str, ...]]], s: Student = opened) -> list[str]:
                    return s.continue_from(items, self.task.max_tokens, only_finished=True)

                risks = {id_: told.get(id_, risk_of(tree, model)) for id_, tree in trees.items()}
                planned = Planned(Planner(config, abilities_of(teacher)), risks)
                annotations += annotate(hidden, trees, teacher, continue_from, config, planned)
                history += [
                    (features(step_traces(tree), tree.steps, tree.answer, "number"), not self._is_right(tree))
                    for tree in trees.values()
                ]
                usable = [
                    Example(self.pool[a.question_id], a.steps, a.answer) for a in annotations if a.answer and a.steps
                ]
                own: list[Example] = []
                if is_taught_own:
                    own = self._own(explained, batch, told, number, len(usable))
                    usable, own, num_tokens = self._in_other_words(opened, usable, own, number)
                    student_tokens += num_tokens
            key = "1" if number == 1 and mode == "rationale" else f"{name}-{number}"
            student = self.taught(key, [*usable, *own])
            if not done(number):
                yield {
                    "round": number,
                    "annotated": len(usable),
                    "accuracy": round(self.accuracy(student), 4),
                    "num_test": len(self.task.test),
                    "batch": len(batch),
                    "wrong_in_batch": sum(not self._is_right(tree) for tree in trees.values()),
                    "unlearnable_in_batch": sum(q.id in self.task.unlearnable for q in batch),
                    "flawed": sum(self._is_flawed(a.question_id, a.steps) for a in annotations if a.is_usable),
                    "own": len(own),
                    "own_flawed": round(sum(map(self._share_flawed, own))),
                    "requests": sum(a.usage.requests for a in annotations),
                    "prompt_tokens": sum(a.usage.prompt_tokens for a in annotations),
                    "completion_tokens": sum(a.usage.completion_tokens for a in annotations),
                    "student_tokens": student_tokens,
                    "seconds": round(time.monotonic() - start, 1),
                    "device": self.device,
                }
            # the students of an arm are not needed again once the next one stands
            for past in {number - 1, number if number == len(sizes) else 0} - {0}:
                for kind in ("student", "onnx"):
                    shutil.rmtree(self.folder / f"{kind}-{name}-{past}", ignore_errors=True)

    def whole_pool(self) -> dict[str, Any]:
        """The student that is taught the whole pool, with the same number of updates."""
        start = time.monotonic()
        teacher = ReferenceTeacher(self.pool, self.task.first_flaw)
        chains = [teacher.rationale(question, None) for question in self.task.pool]
        examples = [Example(q, c.steps, c.answer or "") for q, c in zip(self.task.pool, chains, strict=True)]
        accuracy = self.accuracy(self.taught("whole", examples))
        return {
            "round": 1,
            "annotated": len(examples),
            "accuracy": round(accuracy, 4),
            "num_test": len(self.task.test),
            "requests": len(chains),
            "prompt_tokens": sum(chain.usage.prompt_tokens for chain in chains),
            "completion_tokens": sum(chain.usage.completion_tokens for chain in chains),
            "student_tokens": 0,
            "seconds": round(time.monotonic() - start, 1),
            "device": self.device,
        }

    @property
    def _scoring(self) -> ScoringConfig:
        return ScoringConfig(max_explanation_tokens=self.task.max_tokens, max_branch_tokens=self.task.max_tokens)

    def _choose(
        self,
        explained: Sequence[ReasoningTree],
        strategy: str,
        mode: str,
        left: list[Question],
        annotations: Sequence[Annotation],
        model: RiskModel,
        rng: np.random.Generator,
        size: int,
    ) -> list[Question]:
        """The batch that a strategy chooses by the explanations of the questions left."""
        scores = {q.id: 0.5 for q in left}
        if strategy != "random":
            scores = {s.question_id: s.value for s in score(explained, strategy, seed=self.seed, risk=model)}
        trees = {tree.question.id: tree for tree in explained}
        left = sorted(left, key=lambda question: question.id)
        chosen = select(
            left,
            np.array([scores[question.id] for question in left]),
            SelectionConfig(strategy=strategy),
            num=size,
            first_round=False,
            rng=rng,
            already=[self.pool[a.question_id] for a in annotations],
            outcomes=(lambda asked: self._outcomes([trees[q.id] for q in asked])) if has_answers(mode) else None,
        )
        return [self.pool[choice.question_id] for choice in chosen]

    def _told(self, explained: Sequence[ReasoningTree], model: RiskModel) -> dict[str, float]:
        """How likely each answer is wrong, told by what is wrong around it, as a run corrects it."""
        if not explained:
            return {}
        risks = np.array([risk_of(tree, model) for tree in explained])
        around = Neighborhood.of([tree.question for tree in explained], SelectionConfig().neighbors)
        found = corrected(risks, self._outcomes(explained), around)
        return {tree.question.id: risk for tree, risk in zip(explained, found.tolist(), strict=True)}

    def _outcomes(self, explained: Sequence[ReasoningTree]) -> Floats:
        """1 where the answer is wrong, else 0."""
        return np.array([float(not self._is_right(tree)) for tree in explained])

    def _own(
        self,
        explained: Sequence[ReasoningTree],
        batch: Sequence[Question],
        told: Mapping[str, float],
        number: int,
        num_verified: int,
    ) -> list[Example]:
        """The student's own explanations that are taught beside the batch, as a run draws them."""
        asked = {question.id for question in batch}
        trees = {tree.question.id: tree for tree in explained if tree.question.id not in asked}
        risks = {id_: told[id_] for id_ in trees}
        num_seen = (self._training.max_steps or 0) * self._training.examples_per_step
        num = room_for_own(num_seen, len(self._known()) + num_verified, num_verified)
        rng = np.random.default_rng([self.seed, number, 9])
        return own_examples([self.pool[id_] for id_ in sorted(trees)], trees, risks, num, rng)

    def _in_other_words(
        self, student: Student, usable: list[Example], own: list[Example], number: int
    ) -> tuple[list[Example], list[Example], int]:
        """Both in the wordings that the student samples, and the tokens that it generates for them."""
        counts: list[int] = []
        num_seen = (self._training.max_steps or 0) * self._training.examples_per_step
        num_passes = num_seen / (len(self._known()) + len(usable) + len(own))
        params = sampling_params(self.task.max_tokens, self.seed + number, num_passes)

        def explain_again(questions: Sequence[Question]) -> Iterator[ReasoningTree]:
            for tree in student.generate_trees(questions, params):
                counts.append(tree.tokens.generated)
                yield tree

        both = [list(in_other_words(examples, explain_again)) for examples in (usable, own)]
        return *both, sum(counts)

    def _is_flawed(self, id_: str, steps: Sequence[str]) -> bool:
        """Whether a step of an explanation that is taught is wrong, though it reaches the answer."""
        return self.task.first_flaw(self.pool[id_], steps) is not None

    def _share_flawed(self, example: Example) -> float:
        """Of the explanations of an example."""
        num_flawed = sum(self._is_flawed(example.question.id, steps) for steps in example.explanations)
        return num_flawed / len(example.explanations)

    def _is_right(self, tree: ReasoningTree) -> bool:
        return agree(tree.answer, self.pool[tree.question.id].answer)
