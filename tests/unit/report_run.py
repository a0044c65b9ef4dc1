"""A run folder made up for the report's tests: word problems, a student that learns, a teacher that corrects."""

import json
from pathlib import Path

import numpy as np

SKILLS = ("addition", "change from money", "rates", "sharing")


def make_run(folder: Path, *, num_rounds: int = 3, batch: int = 60, pool: int = 400, seed: int = 0) -> Path:
    """Write the files that a finished run leaves behind."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(
        '[teacher]\nurl = "https://key:secret@host/v1"\nextra_headers = {"Authorization" = "Bearer secret"}\n'
        "[stopping]\nepsilon = 0.1\n"
    )
    metrics, usage, usable, aside = [], [0, 0, 0], 0, 0
    for number in range(num_rounds + 1):
        rows = _round(folder / f"rounds/{number:02d}", rng, number, batch, pool) if number else []
        for row in rows:
            usage = [a + b for a, b in zip(usage, (2, 640, 90), strict=True)]
            usable, aside = usable + (row["status"] != "set_aside"), aside + (row["status"] == "set_aside")
        metrics.append(_metrics(number, num_rounds, usable, aside, usage, len(rows)))
    _jsonl(folder / "metrics.jsonl", metrics)
    certificate = {
        "look": num_rounds,
        "num_audited": 100,
        "num_disagreements": 3,
        "population": 2000,
        "alpha": 0.05 / (num_rounds * (num_rounds + 1)),
        "epsilon": 0.1,
        "upper": 0.0985,
        "lower": 0.004,
        "confidence": 0.95,
        "is_certified": True,
    }
    summary = {
        "stopped_because": "certified",
        "rounds": num_rounds,
        "pool": 2000,
        "too_long": 0,
        "annotated": usable,
        "set_aside": aside,
        "base_accuracy": metrics[0]["accuracy"],
        "accuracy": metrics[-1]["accuracy"],
        "package_accuracy": metrics[-1]["accuracy"] - 0.004,
        "package_agreement": 0.992,
        "certificate": certificate,
        "teacher": metrics[-1]["teacher"],
        "teacher_self_agreement": {"same": 20, "asked_twice": 20},
        "seconds": {"fine-tune": 212.4, "score": 96.0, "revise": 31.5, "export": 12.2, "evaluate": 9.9, "audit": 4.0},
        "quantization": "int8",
        "student": "quickstart/base",
        "strategy": "elad",
        "seed": seed,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def _metrics(number: int, num_rounds: int, usable: int, aside: int, usage: list[int], selected: int) -> dict:
    accuracy = 0.42 + 0.5 * (1 - 0.45**number)
    requests, prompt, completion = usage
    by_skill = {
        skill: [round(100 * min(0.99, accuracy + shift * (1 - number / num_rounds))), 100]
        for skill, shift in zip(SKILLS, (0.5, -0.3, -0.4, 0.1), strict=True)
    }
    k = round(100 * (1 - accuracy) * 0.8)
    return {
        "round": number,
        "selected": selected,
        "annotated": usable,
        "set_aside": aside,
        "accuracy": accuracy,
        "accuracy_strict": accuracy - 0.01,
        "low": accuracy - 0.045,
        "high": min(1.0, accuracy + 0.042),
        "num_test": 400,
        "by_skill": by_skill,
        "package_accuracy": accuracy - 0.004,
        "package_agreement": 0.99,
        "shipping": "int8",
        "agreement": {
            "k": k,
            "n": 100,
            "upper": min(1, k / 100 + 0.07) if number else None,
            "lower": max(0, k / 100 - 0.05) if number else None,
            "alpha": 0.025 if number else None,
        },
        "kappa": 0.7 if number else None,
        "teacher": {
            "requests": requests,
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "cost_usd": prompt * 4e-7 + completion * 1.6e-6,
        },
        "rungs": {},
        "statuses": {},
        "student_tokens": 120_000 if number else 0,
        "mean_score": 0.31 if number else None,
        "seconds": {"score": 32.0, "fine-tune": 70.8, "revise": 10.5} if number else {"audit": 4.0, "evaluate": 3.1},
    }


def _round(folder: Path, rng: np.random.Generator, number: int, batch: int, pool: int) -> list[dict]:
    folder.mkdir(parents=True)
    problems = [_problem(rng, f"q{number}-{index:04d}") for index in range(pool)]
    scores = [_scored(rng, *problem) for problem in problems]
    _jsonl(folder / "scores.jsonl", scores)
    order = sorted(range(pool), key=lambda index: -scores[index]["score"])
    explored = max(1, batch // 8)
    chosen = [(index, "score") for index in order[: batch - explored]]
    chosen += [(index, "explore") for index in order[pool // 2 : pool // 2 + explored]]
    _jsonl(
        folder / "selected.jsonl",
        [
            {
                "id": scores[index]["id"],
                "question": problems[index][1],
                "reason": reason,
                "score": scores[index]["score"],
                "propensity": 0.2,
            }
            for index, reason in chosen
        ],
    )
    annotations = [_annotation(scores[index], problems[index], position) for position, (index, _) in enumerate(chosen)]
    _jsonl(folder / "annotations.jsonl", annotations)
    return annotations


def _problem(rng: np.random.Generator, question_id: str) -> tuple[str, str, list[str], str]:
    name = ("Ann", "Ben", "Carl", "Dana")[rng.integers(4)]
    price, number, paid = int(rng.integers(2, 9)), int(rng.integers(2, 9)), 100
    tail = " The shop is open every day except on Sundays, and it closes early in winter." if rng.random() < 0.3 else ""
    text = f"{name} buys {number} pens at ${price} each and pays with ${paid}.{tail} How much change does {name} get?"
    cost = price * number
    steps = [f"{number} pens at ${price} each cost {number} * {price} = {cost} dollars.",
             f"The change is {paid} - {cost} = {paid - cost} dollars."]  # fmt: skip
    return question_id, text, steps, str(paid - cost)


def _scored(rng: np.random.Generator, question_id: str, text: str, steps: list[str], answer: str) -> dict:
    student = list(steps)
    right = rng.random() < 0.4
    if not right:
        student[1] = student[1].replace(f"= {answer}", f"= {int(answer) + 10}")
    given = answer if right else str(int(answer) + 10)
    step_scores = [float(rng.beta(1.2, 3)), float(rng.beta(1 if right else 4, 3))]
    branches = [[given, given, answer], [given, answer, None], [given, given, given]]
    return {
        "id": question_id,
        "strategy": "elad",
        "score": sum(step_scores) / 2 + float(rng.random()) * 0.4,
        "explanation": "\n".join([*student, f"The answer is {given}"]),
        "steps": student,
        "answer": given,
        "branch_answers": branches,
        "step_scores": step_scores,
        "mean_logprob": -0.3,
        "mean_entropy": 0.4,
        "num_tokens": 120,
    }


def _annotation(score: dict, problem: tuple[str, str, list[str], str], position: int) -> dict:
    _, _, steps, answer = problem
    is_right = score["answer"] == answer
    status, rung = ("accepted", "L1") if is_right else ("revised", "L2")
    corrections = [] if is_right else [{"step": 1, "before": score["steps"][1], "after": steps[1], "source": "teacher"}]
    reason = ""
    if position % 9 == 4:
        steps = [f"Each pen is paid alone: {steps[0]}", steps[1]]
        status, rung = ("completed", "L4") if position % 2 else ("rationale", "L5")
        corrections = [{"step": 0, "before": "<b>half</b>", "after": "a path given up", "source": "teacher"}]
    if position % 13 == 7:
        status, rung, steps, reason = "set_aside", "", [], "the teacher's answers do not agree: 3 of 3 differ"
    return {
        "question_id": score["id"],
        "status": status,
        "rung": rung,
        "steps": steps,
        "answer": None if reason else answer,
        "reason": reason,
        "student_steps": score["steps"],
        "corrections": corrections,
        "usage": {"requests": 2, "prompt_tokens": 640, "completion_tokens": 90, "cost_usd": 0.0004},
    }


def _jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
