"""Read rows of public datasets under the field names that their authors published.

To add a dataset, write a function or a call of `_choice`, and its line in the table below with the fields that identify
it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from edgeelad.pool.chats import PROMPTS, REPLIES, alpaca, chat, math, prompted
from edgeelad.pool.fields import (
    explanation_of,
    id_of,
    joined_of,
    options_of,
    right_choice,
    scalar_of,
    text_of,
)
from edgeelad.pool.own import Draft
from edgeelad.pool.problems import asdiv, gsm8k, svamp
from edgeelad.pool.rows import Row, type_name
from edgeelad.text.prompts import CHOICE_LABELS

NLI_LABELS = ("entailment", "neutral", "contradiction")
NLI_NOTE = "labels 0, 1, 2 are read as entailment, neutral, contradiction, as in SNLI, MNLI and ANLI"
NLI_SHORT = {"e": "entailment", "n": "neutral", "c": "contradiction", "0": "entailment", "1": "neutral",
             "2": "contradiction", "entails": "entailment", "contradicts": "contradiction"}  # fmt: skip

_ANSWER_REMARK = re.compile(
    r"\W*(?:(?:so|hence|thus|therefore|the|this|gives|us|correct|right|final|answer|ans|option|choice|is)\b\W*)*"
    r"[A-E]?\W*(?:is\s+(?:the\s+)?(?:correct|right)\s+(?:answer|option|choice))?\W*",
    re.IGNORECASE,
)


# --- reading comprehension ------------------------------------------------------------------------------------------


def boolq(row: Row) -> Draft:
    """BoolQ (Clark et al. 2019): a passage and a question; the answer is a truth value, in SuperGLUE a label."""
    name = "answer" if row.name_of("answer") else "label"
    value = scalar_of(row, name)
    if name == "label":
        value = {"0": "no", "1": "yes", "-1": None}.get((value or "-1").removesuffix(".0"), value)
    id_ = id_of(row, "id") or id_of(row, "idx")
    return Draft(text=joined_of(row, ["passage", "question"]), answer=value, kind="boolean", id=id_)


def squad(row: Row) -> Draft:
    """SQuAD (Rajpurkar et al. 2016): the first of the given answers; none for a question without answer (2.0)."""
    answers = row.get("answers")
    texts: Any = answers.get("text") if isinstance(answers, dict) else answers
    if isinstance(texts, list):
        texts = [item.get("text") if isinstance(item, dict) else item for item in texts]
    if texts is not None and (not isinstance(texts, list) or not all(isinstance(text, str) for text in texts)):
        row.fail("answers", "expected texts with their places in the context", "restore the file as published")
    return Draft(
        text=joined_of(row, ["context", "question"]),
        answer=texts[0] if texts else None,
        kind="text",
        id=id_of(row, "id"),
    )


def hotpotqa(row: Row) -> Draft:
    """HotpotQA (Yang et al. 2018) and 2WikiMultiHopQA: paragraphs with titles, in one of two forms; a short answer."""
    context = row.get("context")
    if isinstance(context, dict):  # as Hugging Face has it
        titles, texts = context.get("title"), context.get("sentences", context.get("content"))
        context = None
        if isinstance(titles, list) and isinstance(texts, list) and len(titles) == len(texts):
            context = list(zip(titles, texts, strict=True))
    if not isinstance(context, list) or not all(map(_is_paragraph, context)):
        row.fail("context", "expected paragraphs: titles with lists of sentences", "restore the file as published")
    paragraphs = (f"{title}: {''.join(sentences).strip()}" for title, sentences in context)
    return Draft(
        text="\n\n".join(("\n".join(paragraphs), text_of(row, "question").strip())).strip(),
        answer=scalar_of(row, "answer"),
        kind="text",
        id=id_of(row, "_id") or id_of(row, "id"),
    )


def _is_paragraph(item: Any) -> bool:
    """Whether an item is a title with its sentences."""
    if not isinstance(item, list | tuple) or len(item) != 2 or not isinstance(item[1], list):
        return False
    return all(isinstance(text, str) for text in (item[0], *item[1]))


def drop(row: Row) -> Draft:
    """DROP (Dua et al. 2019): a number, a date or spans; of the answers of several annotators, the most common."""
    spans = row.get("answers_spans.spans")
    if spans is None:
        spans = _drop_answer(row)
    if not isinstance(spans, list) or not all(isinstance(span, str) for span in spans):
        row.fail("answers_spans", "expected a list of spans", "restore the file as published")
    common = Counter(spans).most_common(1)
    answer = common[0][0] if common and common[0][1] > 1 else ", ".join(spans)
    return Draft(text=joined_of(row, ["passage", "question"]), answer=answer.strip() or None, id=id_of(row, "query_id"))


def _drop_answer(row: Row) -> list[Any]:
    if row.get("answer.number") not in (None, ""):
        return [str(row.get("answer.number"))]
    if row.get("answer.spans"):
        return list(row.get("answer.spans"))
    date = [str(row.get(f"answer.date.{part}") or "").strip() for part in ("day", "month", "year")]
    return [" ".join(part for part in date if part)]


# --- yes or no, and inference ---------------------------------------------------------------------------------------


def strategyqa(row: Row) -> Draft:
    """StrategyQA (Geva et al. 2021): the facts are the steps; the decomposition is questions, so no explanation."""
    if not isinstance(row.get("answer"), bool):
        row.fail("answer", f"expected true or false, found {type_name(row.get('answer'))}", "correct the row")
    return Draft(
        text=text_of(row, "question"),
        answer=scalar_of(row, "answer"),
        explanation=explanation_of(row, "facts"),
        kind="boolean",
        id=id_of(row, "qid"),
    )


def nli(row: Row) -> Draft:
    """Natural language inference: SNLI, MNLI, XNLI, ANLI, e-SNLI and SuperGLUE's RTE and CB.

    The labels are those that the file names, else entailment, neutral and contradiction.
    """
    pairs = (("premise", "hypothesis"), ("sentence1", "sentence2"), ("context", "hypothesis"))
    premise, hypothesis = next((pair for pair in pairs if row.name_of(pair[0]) and row.name_of(pair[1])), pairs[0])
    name = "gold_label" if row.name_of("gold_label") else "label"
    given = (scalar_of(row, name) or "-").casefold().removesuffix(".0")
    labels = tuple(label.casefold() for label in row.classes.get(str(row.name_of(name)), NLI_LABELS))
    if given == "not_entailment":
        labels = ("entailment", "not_entailment")
    label = given if given in labels else NLI_SHORT.get(given)
    if label is None and given not in ("-", "-1"):
        row.fail(name, f"{given!r} is none of the labels {', '.join(labels)}", "correct the row, or name the fields")
    ids = (id_of(row, key) for key in ("uid", "pairID", "id", "idx"))
    return Draft(
        text=f"Premise: {joined_of(row, [premise])}\nHypothesis: {joined_of(row, [hypothesis])}\n"
        "Does the premise entail the hypothesis?",
        answer=CHOICE_LABELS[labels.index(label)] if label is not None else None,
        choices=labels,
        explanation=next((text for text in map(row.get, ("explanation_1", "reason")) if isinstance(text, str)), None),
        kind="choice",
        id=next((id_ for id_ in ids if id_), None),
        note=NLI_NOTE if given in ("0", "1", "2") else "",
    )


# --- choices --------------------------------------------------------------------------------------------------------


def _choice(
    question: str,
    choices: str,
    answer: str,
    *,
    first_index: int | None = None,
    explanation: str = "explanation",
    ids: str = "id",
    skill: str = "skill",
) -> Callable[[Row], Draft]:
    """A reader of multiple-choice rows; `question`, `choices` and `ids` are names separated by spaces."""

    def read(row: Row) -> Draft:
        options = options_of(row, choices.split())
        found = (id_of(row, name) for name in ids.split())
        return Draft(
            text=joined_of(row, question.split()),
            answer=right_choice(row, answer, options, first_index=first_index),
            choices=options.texts,
            explanation=explanation_of(row, explanation),
            kind="choice",
            skill=scalar_of(row, skill),
            id=next((id_ for id_ in found if id_), None),
        )

    return read


def commonsenseqa(row: Row) -> Draft:
    """CommonsenseQA, ARC, OpenBookQA and QASC: a stem, labeled choices, the label of the right one."""
    nested = row.get("question")
    inner = Row(row.where, nested) if isinstance(nested, dict) else row
    options = options_of(inner, ["choices"])
    if not options.labels:
        inner.fail("choices", "expected a list of objects with label and text", "correct the row")
    stem = "stem" if inner is not row else "question_stem" if row.name_of("question_stem") else "question"
    return Draft(
        text=joined_of(inner, [stem]),
        answer=right_choice(row, "answerKey", options),
        choices=options.texts,
        kind="choice",
        id=id_of(row, "id"),
    )


def aqua(row: Row) -> Draft:
    """AQuA-RAT (Ling et al. 2017): options without their labels; the rationale without a closing "Answer: B"."""
    options = options_of(row, ["options"])
    steps = [line for line in (explanation_of(row, "rationale") or "").split("\n") if line.strip()]
    while steps and _ANSWER_REMARK.fullmatch(steps[-1]):
        steps.pop()
    text_of(row, "correct")
    return Draft(
        text=text_of(row, "question"),
        answer=right_choice(row, "correct", options),
        choices=options.texts,
        explanation="\n".join(steps) or None,
        kind="choice",
    )


def tracking(row: Row) -> Draft:
    """BIG-bench's multiple choice, such as tracking shuffled objects: choices with scores, 1 for the right one."""
    scores = row.get("target_scores")
    if not isinstance(scores, dict) or list(scores.values()).count(1) != 1:
        row.fail("target_scores", "expected an object that gives one choice the score 1", "correct the row")
    choices = tuple(str(choice) for choice in scores)
    right = next(index for index, score in enumerate(scores.values()) if score == 1)
    return Draft(
        text=text_of(row, "input"),
        answer=CHOICE_LABELS[right] if right < len(CHOICE_LABELS) else None,
        choices=choices,
        kind="choice",
        skill=scalar_of(row, "name"),
    )


def bigbench(row: Row) -> Draft:
    """BIG-bench Hard: an input, which may list its choices, and a target such as "(B)", "yes" or "12"."""
    text, target = text_of(row, "input"), row.get("target")
    answer = target[0] if isinstance(target, list) and len(target) == 1 else scalar_of(row, "target")
    is_label = isinstance(answer, str) and re.fullmatch(r"\([A-Z]\)", answer) and answer in text
    return Draft(text=text, answer=answer, kind="choice" if is_label else None, skill=scalar_of(row, "name"))


def agieval(row: Row) -> Draft:
    """AGIEval (Zhong et al. 2023): a passage or none, a question, options or none; a label, or an answer."""
    options = options_of(row, ["options"])
    solution = row.get("other.solution")
    return Draft(
        text=joined_of(row, ["passage", "question"]),
        answer=right_choice(row, "label", options) if options.texts else scalar_of(row, "answer"),
        choices=options.texts,
        explanation=solution if isinstance(solution, str) else None,
        kind="choice" if options.texts else None,
    )


def agieval_query(row: Row) -> Draft:
    """AGIEval as harnesses have it: a query that repeats the choices, and the index of the right one."""
    options = options_of(row, ["choices"])
    return Draft(
        text=text_of(row, "query").removeprefix("Q: ").partition("Answer Choices:")[0],
        answer=right_choice(row, "gold", options, first_index=0),
        choices=options.texts,
        kind="choice",
    )


def sciq(row: Row) -> Draft:
    """SciQ (Welbl et al. 2017): the right answer among the distractors, in alphabetical order; the support before."""
    names = ("correct_answer", "distractor1", "distractor2", "distractor3")
    right, *others = (text_of(row, name) for name in names)
    choices = tuple(sorted((right, *others)))
    return Draft(
        text=joined_of(row, ["support", "question"]),
        answer=CHOICE_LABELS[choices.index(right)],
        choices=choices,
        kind="choice",
    )


def copa(row: Row) -> Draft:
    """COPA (Roemmele et al. 2011): a premise, and whether its cause or its effect is asked for."""
    asked = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}
    direction = text_of(row, "question")
    if direction not in asked:
        row.fail("question", f"{direction[:40]!r} is neither 'cause' nor 'effect'", "restore the file as published")
    draft = _choice("premise", "choice1 choice2", "label", first_index=0, ids="id idx")(row)
    return replace(draft, text=f"{draft.text} {asked[direction]}")


# --- the table ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Published:
    """A public dataset's layout: how a row is read, and the sets of fields that identify it."""

    read: Callable[[Row], Draft]
    keys: tuple[frozenset[str], ...]


def _published(read: Callable[[Row], Draft], *keys: str) -> Published:
    return Published(read, tuple(frozenset(names.casefold().split()) for names in keys))


PUBLISHED: dict[str, Published] = {
    "gsm8k": _published(gsm8k, "question answer"),
    "svamp": _published(svamp, "Question Numbers Equation Answer", "Body Question Equation Answer"),
    "mawps-asdiv": _published(svamp, "Question Numbers Equation Answer"),
    "asdiv": _published(
        asdiv,
        "body question answer formula",
        "body question answer solution_type",
        "body question answer solution-type",
    ),
    "strategyqa": _published(strategyqa, "qid question answer facts"),
    "commonsenseqa": _published(commonsenseqa, "question answerKey", "question_stem choices answerKey"),
    "aqua": _published(aqua, "question options rationale correct", "question options correct"),
    "mathqa": _published(
        _choice("Problem", "options", "correct", explanation="Rationale", skill="category"), "Problem options correct"
    ),
    "tracking": _published(tracking, "input target_scores"),
    "mmlu": _published(
        _choice("question", "choices", "answer", first_index=0, skill="subject"), "question choices answer subject"
    ),
    "mmlu-input": _published(_choice("input", "A B C D", "target"), "input A B C D target"),
    "boolq": _published(boolq, "passage question label"),
    "squad": _published(squad, "context question answers id"),
    "hotpotqa": _published(hotpotqa, "question answer context supporting_facts"),
    "drop": _published(drop, "passage question answers_spans", "passage question answer query_id"),
    "agieval": _published(agieval, "passage question options label"),
    "agieval-query": _published(agieval_query, "query choices gold"),
    "nli": _published(nli, "premise hypothesis label", "sentence1 sentence2 gold_label", "context hypothesis label"),
    "logiqa": _published(
        _choice("context query", "options", "correct_option", first_index=0), "context query options correct_option"
    ),
    "logiqa-label": _published(
        _choice("context question", "options", "label", first_index=0), "context question options label"
    ),
    "logiqa2": _published(_choice("text question", "options", "answer", first_index=0), "text question options answer"),
    "reclor": _published(
        _choice("context question", "answers", "label", first_index=0, ids="id_string"),
        "context question answers label",
    ),
    "cosmosqa": _published(
        _choice("context question", "answer0 answer1 answer2 answer3", "label", first_index=0),
        "context question answer0 answer1 answer2 answer3",
    ),
    "siqa": _published(
        _choice("context question", "answerA answerB answerC", "label", first_index=1),
        "context question answerA answerB answerC",
    ),
    "hellaswag": _published(
        _choice("ctx", "endings", "label", first_index=0, ids="", skill="activity_label"), "ctx endings label"
    ),
    "piqa": _published(_choice("goal", "sol1 sol2", "label", first_index=0), "goal sol1 sol2"),
    "winogrande": _published(
        _choice("sentence", "option1 option2", "answer", first_index=1, ids="qID"), "sentence option1 option2"
    ),
    "sciq": _published(sciq, "question correct_answer distractor1 distractor2 distractor3"),
    "copa": _published(copa, "premise choice1 choice2 question"),
    "medmcqa": _published(
        _choice("question", "opa opb opc opd", "cop", first_index=0, explanation="exp", skill="subject_name"),
        "question opa opb opc opd",
    ),
    "math": _published(math, "problem solution", "problem answer"),
    "bigbench": _published(bigbench, "input target"),
    "alpaca": _published(alpaca, "instruction output", "instruction response"),
    "chat": _published(chat, "messages", "conversations"),
    "prompt": _published(prompted, *(f"{prompt} {reply}" for prompt in PROMPTS for reply in REPLIES)),
}


# layouts that a row with a `question` does not have
WITHOUT_QUESTION = ("math", "bigbench", "alpaca", "chat")


def recognize(row: Row) -> str | None:
    """The published layout that a row has the shape of, by the most fields; None for one's own pool."""
    names = {str(name).casefold() for name in row.fields}
    sizes = {
        layout: max((len(keys) for keys in published.keys if keys <= names), default=0)
        for layout, published in PUBLISHED.items()
        if not ("question" in names and layout in WITHOUT_QUESTION)
    }
    if "answer" in names:
        del sizes["prompt"]
    answer = row.fields.get("answer")
    if not (isinstance(answer, str) and re.search(r"^#### ?\S", answer, re.MULTILINE)):
        del sizes["gsm8k"]
    if not (isinstance(answer, int) or answer in tuple("ABCD")):
        del sizes["mmlu"]  # the text of a choice
    best = max(sizes, key=lambda layout: sizes[layout])
    return best if sizes[best] else None
