"""Make the tables and figures of docs/EVIDENCE.md from `results.jsonl`.

    python benchmarks/evidence/page.py

Replaces what stands between `<!-- NAME -->` and `<!-- end -->` in the page, and writes docs/evidence/*.svg.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from arms import ASKED_ONLY, PRETRAINED, has_answers, num_rounds, sizes_of
from figure import Curve, Panel, draw

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from paired import compare_all  # noqa: E402 - a neighbor of this folder

DOCS = HERE.parents[1] / "docs"
TASKS = {
    "words": "word problems",
    "varied": "varied wording",
    "chains": "long chains",
    "mawps": "MAWPS/ASDiv-A",
    "words, large": "word problems, 2,000",
    "varied, large": "varied wording, 2,000",
    "varied, very large": "varied wording, 6,000",
    "chains, large": "long chains, 2,000",
    "pretrained": "SmolLM2-135M",
    "words, pretrained": "word problems, SmolLM2",
    "varied, pretrained": "varied wording, SmolLM2",
    "chains, pretrained": "long chains, SmolLM2",
    "mawps, pretrained": "MAWPS/ASDiv-A, SmolLM2",
}
# dollars per million prompt and completion tokens, and hidden reasoning tokens per request (billed as completion)
PRICES = {"1 : 4": (0.4, 1.6, 0), "reasoning": (1.1, 4.4, 300)}
BAR_OF_MONEY = 0.25  # of the whole pool's money
DEFAULT, ALONE = "risk", "risk, alone"  # with and without the neighbors, by odds and by probability
UNTOLD = "risk, untold"  # on a pool with answers, without what they tell of the neighbors
Row = dict[str, Any]


def main() -> None:
    """Write the page's tables and figures."""
    rows = [json.loads(line) for line in (HERE / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    detection = [row for row in rows if row["kind"] == "detection"]
    learning = [row for row in rows if row["kind"] == "learning"]
    blocks = {
        "detection answer": detection_table(detection, "answer", "auroc"),
        "detection step": detection_table(detection, "step", "auroc"),
        "detection precision": detection_table(detection, "answer", "precision"),
        "detection average precision": detection_table(detection, "answer", "average_precision"),
        "bar": bar_table(detection),
        "transfer": transfer_table([row for row in rows if row["kind"] == "transfer"]),
        "learning": learning_table(learning),
        "rounds": rounds_table(learning),
        "learning figures": learning_figures(learning),
        "whole": whole_table(learning),
        "money": money_table(learning),
        "comparisons": comparison_table(learning),
        "coverage": coverage(rows),
    }
    page = DOCS / "EVIDENCE.md"
    text = page.read_text(encoding="utf-8")
    for name, lines in blocks.items():
        block = "\n".join((f"<!-- {name} -->", "", *lines, "", "<!-- end -->"))
        text, num = re.subn(rf"<!-- {name} -->.*?<!-- end -->", lambda _, b=block: b, text, flags=re.DOTALL)
        assert num == 1, f"{page} has no place for {name}"
    page.write_text(text, encoding="utf-8")
    folder = DOCS / "evidence"
    folder.mkdir(exist_ok=True)
    (folder / "detection.svg").write_text(detection_figure(detection), encoding="utf-8")
    if _arms(learning):
        (folder / "learning.svg").write_text(learning_figure(learning, "annotated"), encoding="utf-8")
        (folder / "money.svg").write_text(learning_figure(learning, "1 : 4"), encoding="utf-8")


# --- detection ---


def _cells(rows: Sequence[Row]) -> list[tuple[str, int]]:
    return sorted({(row["task"], row["round"]) for row in rows}, key=lambda cell: (list(TASKS).index(cell[0]), cell[1]))


def _means(rows: Sequence[Row], target: str, figure: str) -> dict[str, dict[tuple[str, int], float]]:
    """Strategy -> cell -> mean over the seeds."""
    found: dict[str, dict[tuple[str, int], list[float]]] = {}
    for row in rows:
        if row["target"] == target:
            found.setdefault(row["strategy"], {}).setdefault((row["task"], row["round"]), []).append(row[figure])
    return {name: {cell: statistics.fmean(v) for cell, v in cells.items()} for name, cells in found.items()}


def detection_table(rows: Sequence[Row], target: str, figure: str) -> list[str]:
    """One row per strategy, one column per task and round; the best of each column in bold."""
    cells, means = _cells(rows), _means(rows, target, figure)
    tokens = _means(rows, target, "tokens")
    best = {cell: max(found[cell] for found in means.values() if cell in found) for cell in cells}
    order = sorted(means, key=lambda name: -statistics.fmean(means[name].values()))
    lines = [
        "| score | student tokens | " + " | ".join(f"{TASKS[task]}, {number}" for task, number in cells) + " |",
        "|---|---|" + "---|" * len(cells),
    ]
    for name in order:
        shown = (_bold(means[name].get(cell), best[cell]) for cell in cells)
        own = statistics.fmean(tokens[name].values())
        lines.append(f"| `{name}` | {own:.0f} | " + " | ".join(shown) + " |")
    return lines


def _bold(value: float | None, best: float) -> str:
    if value is None:
        return "–"
    return f"**{value:.3f}**" if value >= best - 5e-4 else f"{value:.3f}"


def bar_table(rows: Sequence[Row]) -> list[str]:
    """The default against the best other strategy, cell by cell."""
    lines = [
        "| task, round | wrong | `risk` | best other | student tokens, risk and other | difference |",
        "|---|---|---|---|---|---|",
    ]
    answers = [row for row in rows if row["target"] == "answer"]
    means, tokens = _means(rows, "answer", "auroc"), _means(rows, "answer", "tokens")
    for cell in _cells(answers):
        others = {name: found[cell] for name, found in means.items() if not name.startswith("risk") and cell in found}
        other = max(others, key=lambda name: others[name])
        own = [row for row in answers if (row["task"], row["round"], row["strategy"]) == (*cell, DEFAULT)]
        share = statistics.fmean(row["positive"] / row["num"] for row in own)
        value = means[DEFAULT][cell]
        lines.append(
            f"| {TASKS[cell[0]]}, {cell[1]} | {share:.2f} | {value:.3f} | {others[other]:.3f} (`{other}`) | "
            f"{tokens[DEFAULT][cell]:.0f}, {tokens[other][cell]:.0f} | {value - others[other]:+.3f} |"
        )
    return lines


def transfer_table(rows: Sequence[Row]) -> list[str]:
    """The cold start's form, fitted on other tasks, on all, and on the cell itself, against mean token entropy."""
    lines = [
        "| task, round | seeds | `max-entropy` | fitted on the other tasks | on all tasks | on this cell itself |",
        "|---|---|---|---|---|---|",
    ]
    for task, number in _cells(rows):
        own = [row for row in rows if (row["task"], row["round"]) == (task, number)]
        figures = (f"{_average(own, name):.3f}" for name in ("entropy", "others", "all", "own"))
        lines.append(f"| {TASKS[task]}, {number} | {len(own)} | {' | '.join(figures)} |")
    return lines


def detection_figure(rows: Sequence[Row]) -> str:
    """AUROC against student tokens per question after round 1, one panel per task; a bar spans the seeds."""
    shown = ("risk", "max-entropy", "semantic-entropy", "elad", "elad-removal", "disagreement", "disagreement, 12")
    panels = []
    for task, title in TASKS.items():
        curves = []
        for name in shown:
            own = [
                row
                for row in rows
                if (row["task"], row["round"], row["strategy"], row["target"]) == (task, 1, name, "answer")
            ]
            if own:
                x = statistics.fmean(row["tokens"] for row in own)
                values = [row["auroc"] for row in own]
                curves.append(Curve(name, [(x, statistics.fmean(values), min(values), max(values))]))
        if curves:
            panels.append(Panel(title, curves))
    return draw(panels, "student tokens per question", "AUROC, wrong answers", is_log=True)


# --- learning ---


def money(row: Row, prices: str) -> float:
    """Dollars that the teacher's work up to a row costs."""
    prompt, completion, hidden = PRICES[prices]
    billed = row.get("completion_tokens", 0) + hidden * row.get("requests", 0)
    return float(row.get("prompt_tokens", 0) * prompt + billed * completion) / 1e6


def _arms(rows: Iterable[Row]) -> dict[tuple[str, str, str], dict[int, list[Row]]]:
    """Task, strategy and mode, in the page's order -> seed -> the rows of its rounds, from the base student on."""
    found: dict[tuple[str, str, str], dict[int, list[Row]]] = {}
    base = {}
    rows = list(rows)
    for row in rows:
        if row["round"] == 0:
            base[row["task"], row["seed"]] = row
    for row in sorted(rows, key=lambda row: row["round"]):
        if row["round"]:
            seeds = found.setdefault((row["task"], row["strategy"], row["mode"]), {})
            seeds.setdefault(row["seed"], [base[row["task"], row["seed"]]]).append(row)
    complete = {
        arm: {seed: r for seed, r in seeds.items() if arm[1] == "whole" or r[-1]["round"] == num_rounds(arm[0], arm[2])}
        for arm, seeds in found.items()
    }
    order = list(TASKS)
    ordered = sorted(complete, key=lambda arm: (order.index(arm[0]), not arm[1].startswith(DEFAULT), arm[1:]))
    return {arm: complete[arm] for arm in ordered if complete[arm]}


def learning_table(rows: Sequence[Row]) -> list[str]:
    """One row per task and arm."""
    lines = [
        "| task | choice | teaching | seeds | base | annotated | accuracy | area | wrong in the batch | student tokens "
        "| teacher tokens (prompt, completion) | $ at 1 : 4 | $ with reasoning |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    arms = _arms(rows)
    for task in TASKS:
        for (_, strategy, mode), seeds in sorted(
            ((arm, seeds) for arm, seeds in arms.items() if arm[0] == task and seeds),
            key=lambda item: (item[0][1] == "whole", -_mean(item[1], lambda r: r[-1]["accuracy"])),
        ):
            last = [r[-1] for r in seeds.values()]
            batches = [row for r in seeds.values() for row in r[2:]]
            wrong = sum(row["wrong_in_batch"] for row in batches) / max(sum(row["batch"] for row in batches), 1)
            columns = (
                TASKS[task],
                f"`{strategy}`",
                mode,
                str(len(seeds)),
                f"{_mean(seeds, lambda r: r[0]['accuracy']):.3f}",
                f"{_average(last, 'annotated'):.0f}",
                _spread([row["accuracy"] for row in last]),
                f"{_mean(seeds, _area):.3f}",
                f"{wrong:.2f}" if batches else "–",
                f"{_average(last, 'student_tokens'):,.0f}",
                f"{_average(last, 'prompt_tokens'):,.0f}, {_average(last, 'completion_tokens'):,.0f}",
                *(f"{statistics.fmean(money(row, prices) for row in last):.4f}" for prices in PRICES),
            )
            lines.append(f"| {' | '.join(columns)} |")
    return lines


def rounds_table(rows: Sequence[Row]) -> list[str]:
    """A pretrained student after each round, of unfinished arms too: accuracy by seed, and the share of the money."""
    learned = [row for row in rows if row["task"].endswith(PRETRAINED) and row["round"]]
    whole = {(row["task"], row["seed"]): row for row in learned if row["strategy"] == "whole"}
    arms = {(row["task"], row["strategy"], row["mode"]) for row in learned if row["strategy"] != "whole"}
    counts = sorted({sum(sizes_of(task).batches[:n]) for task, _, _ in arms for n in (1, 2, 3)})
    lines = [
        "| task, whole pool | choice, teaching | " + " | ".join(map(str, counts)) + " |",
        "|---|---|" + "---|" * len(counts),
    ]
    for task, strategy, mode in sorted(arms, key=lambda arm: (list(TASKS).index(arm[0]), arm[1:])):
        theirs = ", ".join(f"{row['accuracy']:.3f}" for (own, _), row in sorted(whole.items()) if own == task)
        cells = []
        for number in range(1, len(counts) + 1):
            found = sorted(
                (row for row in learned if (row["task"], row["strategy"], row["mode"]) == (task, strategy, mode)),
                key=lambda row: row["seed"],
            )
            found = [row for row in found if row["round"] == number]
            shares = [money(row, "1 : 4") / money(whole[task, row["seed"]], "1 : 4") for row in found]
            seen = ", ".join(f"{row['accuracy']:.3f}" for row in found)
            cells.append(f"{seen} for {statistics.fmean(shares):.3f}" if found else "–")
        lines.append(f"| {TASKS[task]}, {theirs} | `{strategy}`, {mode} | {' | '.join(cells)} |")
    return lines


def learning_figures(rows: Sequence[Row]) -> list[str]:
    """Where the curves stand on the page."""
    if not _arms(rows):
        return ["No arm is complete yet."]
    return [
        "Means over each arm's seeds, with a standard error; dashed, the whole pool annotated.",
        "",
        "![Accuracy against questions annotated](evidence/learning.svg)",
        "",
        "![Accuracy against the teacher's cost](evidence/money.svg)",
    ]


def _area(rows: Sequence[Row]) -> float:
    """Mean accuracy over the questions annotated, straight lines between the rounds."""
    total = sum(
        (after["annotated"] - before["annotated"]) * (before["accuracy"] + after["accuracy"]) / 2
        for before, after in itertools.pairwise(rows)
    )
    return float(total / rows[-1]["annotated"]) if rows[-1]["annotated"] else 0.0


def whole_table(rows: Sequence[Row]) -> list[str]:
    """The arms of `risk` against the student that is taught the whole pool, over the seeds that have both.

    After the last round, and, of arms that have spent more by then, where a quarter of the money is spent: between two
    rounds, on the straight line from one to the other.
    """
    arms = _arms(rows)
    lines = [
        "| task | choice, teaching | seeds | whole pool | accuracy | difference | annotated | money |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (task, strategy, mode), seeds in arms.items():
        whole = arms.get((task, "whole", "rationale"), {})
        both = sorted(set(seeds) & set(whole))
        if not strategy.startswith(DEFAULT) or not both:
            continue
        theirs = statistics.fmean(whole[seed][-1]["accuracy"] for seed in both)
        curves = [_against_whole(seeds[seed], whole[seed][-1]) for seed in both]
        ends = [curve[-1] for curve in curves]
        points = [ends]
        if has_answers(mode) and statistics.fmean(money_share for _, money_share, _ in ends) > BAR_OF_MONEY:
            points.insert(0, [_at_money(curve, BAR_OF_MONEY) for curve in curves])
        for found in points:
            annotated, money_share, accuracy = (statistics.fmean(values) for values in zip(*found, strict=True))
            lines.append(
                f"| {TASKS[task]} | `{strategy}`, {mode} | {len(both)} | {theirs:.3f} | {accuracy:.3f} | "
                f"{accuracy - theirs:+.3f} | {annotated:.2f} | {money_share:.3f} |"
            )
    return lines if len(lines) > 2 else ["No task has both yet."]


Point = tuple[float, float, float]
"""Of an arm after a round: the shares of the pool annotated and of the whole pool's money spent, and the accuracy."""


def _against_whole(rounds: Sequence[Row], whole: Row) -> list[Point]:
    """The points of one seed's arm, in order."""
    return [
        (row["annotated"] / whole["annotated"], money(row, "1 : 4") / money(whole, "1 : 4"), row["accuracy"])
        for row in rounds
    ]


def _at_money(curve: Sequence[Point], share: float) -> Point:
    """Where a share of the money is spent, between two rounds; the last point if less is spent."""
    before, after = next((pair for pair in itertools.pairwise(curve) if pair[1][1] >= share), (None, curve[-1]))
    if before is None:
        return after
    part = (share - before[1]) / (after[1] - before[1])
    annotated, _, accuracy = (a + part * (b - a) for a, b in zip(before, after, strict=True))
    return annotated, share, accuracy


def money_table(rows: Sequence[Row]) -> list[str]:
    """The default on pools with answers against full explanations: the share of their money for their last accuracy.

    Both are means over the seeds that have both; ours is read between two rounds on the straight line.
    """
    arms = _arms(rows)
    lines = [
        "| task | seeds | full explanations of | accuracy | with answers, at the end | for the same accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for (task, strategy, mode), seeds in arms.items():
        if strategy != DEFAULT or not has_answers(mode) or mode.endswith(ASKED_ONLY):
            continue
        for choice in (DEFAULT, "random"):
            theirs = arms.get((task, choice, "rationale"), {})
            both = sorted(set(seeds) & set(theirs))
            if not both:
                continue
            cost = statistics.fmean(money(theirs[seed][-1], "1 : 4") for seed in both)
            accuracy = statistics.fmean(theirs[seed][-1]["accuracy"] for seed in both)
            curve = [
                (
                    statistics.fmean(money(row, "1 : 4") for row in found) / cost,
                    statistics.fmean(row["accuracy"] for row in found),
                )
                for found in zip(*(seeds[seed] for seed in both), strict=True)
            ]
            share, (paid, reached) = _money_for(curve, accuracy), curve[-1]
            lines.append(
                f"| {TASKS[task]} | {len(both)} | `{choice}` | {accuracy:.3f} | {reached:.3f} for {paid:.2f} × "
                f"| {'not reached' if share is None else f'{share:.2f} ×'} |"
            )
    return lines if len(lines) > 2 else ["No task has both yet."]


def _money_for(curve: Sequence[tuple[float, float]], accuracy: float) -> float | None:
    """Where a curve of money and accuracy reaches an accuracy, between two rounds; None if it does not.

    >>> _money_for([(0.0, 0.25), (0.25, 0.5), (0.75, 0.75)], 0.625)
    0.5
    """
    for (paid, before), (more, after) in itertools.pairwise(curve):
        if after >= accuracy > before:
            return paid + (accuracy - before) / (after - before) * (more - paid)
    return None


def comparison_table(rows: Sequence[Row]) -> list[str]:
    """The default less each other choice, final accuracy over paired seeds, Holm over all of them."""
    arms = _arms(rows)
    pairs: dict[str, list[float]] = {}
    for (task, strategy, mode), seeds in arms.items():
        reference, taught = _reference(task, strategy, mode, arms)
        ours = arms.get((task, reference, taught), {})
        both = sorted(set(seeds) & set(ours))
        if (strategy, mode) != (reference, taught) and strategy != "whole" and len(both) > 1:
            name = f"{TASKS[task]} | `{reference}`, {taught} | `{strategy}`, {mode}"
            last = len(sizes_of(task).batches)
            pairs[name] = [ours[s][last]["accuracy"] - seeds[s][last]["accuracy"] for s in both]
    if not pairs:
        return ["No task has two seeds yet."]
    lines = [
        "| task | arm | less | seeds | difference | 95 % interval | p (t) | p (Holm) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, c in compare_all(pairs).items():
        lines.append(
            f"| {name} | {len(c.pairs)} | {c.mean:+.3f} | {c.low:+.3f} to {c.high:+.3f} | {c.p_t:.2f} "
            f"| {c.p_holm:.2f} |"
        )
    return lines


def _reference(
    task: str, strategy: str, mode: str, arms: dict[tuple[str, str, str], dict[int, list[Row]]]
) -> tuple[str, str]:
    """The strategy and mode that an arm is compared with, which may be its own."""
    if mode.endswith(ASKED_ONLY):  # what the student's own explanations add
        return strategy, mode.removesuffix(ASKED_ONLY)
    if strategy == UNTOLD:
        return DEFAULT, mode
    # ways of teaching are compared for the same choice; of the default and what it was, the one that was measured
    own = (strategy,) if mode != "rationale" else (DEFAULT, ALONE)
    return next((name for name in own if (task, name, "rationale") in arms), DEFAULT), "rationale"


def learning_figure(rows: Sequence[Row], against: str) -> str:
    """Accuracy against questions annotated, or dollars at a price list; bands a standard error, dashed the whole pool.

    What the default was before stands only where the default itself is not measured; `auto` on bare pools, which
    explains nearly all, `lowest-window`, which `disagreement` hides, and arms without own explanations, or not told by
    the answers, stand in the tables only.
    """
    panels = []
    arms = _arms(rows)
    for task, title in TASKS.items():
        curves = []
        for (_, strategy, mode), seeds in ((arm, seeds) for arm, seeds in arms.items() if arm[0] == task and seeds):
            is_in_tables_only = (
                strategy in ("whole", UNTOLD, "lowest-window") or mode == "auto" or mode.endswith(ASKED_ONLY)
            )
            is_past = strategy == ALONE and any((task, later, mode) in arms for later in (DEFAULT, UNTOLD))
            if is_in_tables_only or is_past:
                continue
            points = []
            for number in range(len(next(iter(seeds.values())))):
                own = [r[number] for r in seeds.values()]
                x = (
                    _average(own, "annotated")
                    if against == "annotated"
                    else statistics.fmean(money(r, against) for r in own)
                )
                values = [row["accuracy"] for row in own]
                mean, error = statistics.fmean(values), _standard_error(values)
                points.append((x, mean, mean - error, mean + error))
            curves.append(Curve(strategy if mode == "rationale" else f"{strategy}, {mode}", points))
        if curves:
            whole = arms.get((task, "whole", "rationale"), {})
            level = _mean(whole, lambda r: r[-1]["accuracy"]) if whole else None
            panels.append(Panel(title, curves, level))
    label = "questions annotated" if against == "annotated" else "dollars for the teacher, prices 1 : 4"
    return draw(panels, label, "test accuracy")


def coverage(rows: Sequence[Row]) -> list[str]:
    """What has been measured so far."""
    lines = ["| task | detection, seeds | learning, complete arms by seed |", "|---|---|---|"]
    arms = _arms(row for row in rows if row["kind"] == "learning")
    for task, title in TASKS.items():
        seeds = sorted({row["seed"] for row in rows if row["kind"] == "detection" and row["task"] == task})
        done: dict[int, int] = {}
        for (own, _, _), by_seed in arms.items():
            for seed in by_seed if own == task else ():
                done[seed] = done.get(seed, 0) + 1
        by_num = sorted({num: [seed for seed in done if done[seed] == num] for num in done.values()}.items())
        learned = "; ".join(f"seeds {_ranges(own)}: {num}" for num, own in reversed(by_num)) or "none"
        lines.append(f"| {title} | {', '.join(map(str, seeds)) or 'none'} | {learned} |")
    return lines


def _ranges(numbers: Iterable[int]) -> str:
    """Numbers in ascending order, those in a row as a range.

    >>> _ranges([2, 0, 1, 5])
    '0 to 2, 5'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _mean(seeds: dict[int, list[Row]], figure: Callable[[list[Row]], float]) -> float:
    return statistics.fmean(figure(rows) for rows in seeds.values())


def _average(rows: Sequence[Row], name: str) -> float:
    return statistics.fmean(row.get(name, 0) for row in rows)


def _standard_error(values: Sequence[float]) -> float:
    """Of the mean; 0 for one value."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()
