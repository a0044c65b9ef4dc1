"""Public datasets under their published field names: no part of a question is lost, no answer misread."""

import json
import logging

import pytest

from edgeelad.pool import read_pool
from edgeelad.pool.published import recognize
from edgeelad.pool.rows import Row

NLI = ("entailment", "neutral", "contradiction")
SQUAD = {
    "id": "5733be",
    "title": "University_of_Notre_Dame",
    "context": "The statue stands on the dome.",
    "question": "Where does it stand?",
    "answers": {"text": ["on the dome", "the dome"], "answer_start": [18, 21]},
}
BOOLQ = {"question": "is wet water wet", "title": "Water", "answer": True, "passage": "Water is wet."}
# name: row, layout, parts of the question in order, kind, choices, answer, explanation
LAYOUTS = {
    "BoolQ": (BOOLQ, None, ("Water is wet.", "is wet water wet"), "boolean", (), "yes", None),
    "BoolQ in SuperGLUE": (
        {"question": "is it wet", "passage": "It is dry.", "idx": 3, "label": 0},
        "boolq", ("It is dry.", "is it wet"), "boolean", (), "no", None,
    ),
    "SQuAD": (SQUAD, "squad", ("The statue stands on the dome.", "Where does it stand?"), "text", (), "on dome", None),
    "SQuAD 2.0, unanswerable": (
        {**SQUAD, "answers": {"text": [], "answer_start": []}},
        "squad", ("The statue stands on the dome.", "Where does it stand?"), "text", (), None, None,
    ),
    "HotpotQA": (
        {"_id": "5a8b", "answer": "yes", "question": "Do A and B share a country?", "supporting_facts": [["A", 0]],
         "context": [["A", ["A is Danish.", " He acts."]], ["B", ["B is Danish."]]], "type": "bridge", "level": "hard"},
        "hotpotqa", ("A: A is Danish. He acts.\nB: B is Danish.", "Do A and B share"), "text", (), "yes", None,
    ),
    "HotpotQA on Hugging Face": (
        {"id": "5a8b", "answer": "Ann", "question": "Who?", "supporting_facts": {"title": ["A"], "sent_id": [0]},
         "context": {"title": ["A", "B"], "sentences": [["A is Ann."], ["B is", " Bo."]]}},
        "hotpotqa", ("A: A is Ann.\nB: B is Bo.", "Who?"), "text", (), "ann", None,
    ),
    "2WikiMultiHopQA": (
        {"_id": "1", "answer": "Ann", "question": "Who?", "supporting_facts": [["A", 0]], "evidences": [["A", "b"]],
         "context": [["A", ["A is Ann."]]], "type": "compositional"},
        "hotpotqa", ("A: A is Ann.", "Who?"), "text", (), "ann", None,
    ),
    "ASDiv as rows of its XML": (
        {"ID": "n1", "Grade": "1", "Source": "x", "Body": "Two red and 3 blue.", "Question": "How many?",
         "Solution-Type": "Addition", "Answer": "5 (pens)", "Formula": "2+3=5"},
        "asdiv", ("Two red and 3 blue.", "How many?"), "number", (), "5", ("2+3=5",),
    ),
    "DROP": (
        {"section_id": "nfl_1", "query_id": "q1", "passage": "They scored twice.", "question": "How many scores?",
         "answers_spans": {"spans": ["2", "3", "2"], "types": ["number", "number", "number"]}},
        "drop", ("They scored twice.", "How many scores?"), "number", (), "2", None,
    ),
    "DROP with two spans": (
        {"section_id": "nfl_1", "query_id": "q1", "passage": "Smith and Jones scored.", "question": "Who scored?",
         "answers_spans": {"spans": ["Smith", "Jones"], "types": ["span", "span"]}},
        "drop", ("Smith and Jones scored.", "Who scored?"), "text", (), "smith jones", None,
    ),
    "DROP in a harness": (
        {"section_id": "h1", "query_id": "q2", "passage": "It fell in May 1945.", "question": "When?",
         "answer": {"number": "", "date": {"day": "", "month": "May", "year": "1945"}, "spans": []},
         "validated_answers": {"number": []}},
        "drop", ("It fell in May 1945.", "When?"), "text", (), "may 1945", None,
    ),
    "ASDiv": (
        {"body": "Seven red apples and two green apples are in the basket.", "question": "How many apples are there?",
         "solution_type": "Addition", "answer": "9 (apples)", "formula": "7+2=9"},
        "asdiv", ("Seven red apples", "How many apples are there?"), "number", (), "9", ("7+2=9",),
    ),
    "SVAMP as JSON": (
        {"ID": "chal-1", "Body": "Each pack costs 76 dollars.", "Question": "How much for 4 packs and 6 dollars?",
         "Equation": "( ( 4.0 * 76.0 ) + 6.0 )", "Answer": 310.0, "Type": "Addition"},
        "svamp", ("Each pack costs 76 dollars.", "How much for 4 packs"), "number", (), "310",
        ("4 * 76 = 304", "304 + 6 = 310"),
    ),
    "SVAMP on the hub": (
        {"ID": "chal-2", "Body": "He has 9 pens.", "Question": "How many after losing 4?", "Equation": "( 9.0 - 4.0 )",
         "Answer": "5.0", "Type": "Subtraction", "question_concat": "He has 9 pens. How many after losing 4?"},
        "svamp", ("He has 9 pens.", "How many after losing 4?"), "number", (), "5", ("9 - 4 = 5",),
    ),
    "AGIEval": (
        {"passage": "Seven people sit in a row.", "question": "Who sits first?",
         "options": ["(A)Ann", "(B)Ben", "(C)Cid"], "label": "C", "answer": None, "other": None},
        "agieval", ("Seven people sit in a row.", "Who sits first?"), "choice", ("Ann", "Ben", "Cid"), "C", None,
    ),
    "AGIEval, MATH": (
        {"passage": None, "question": "What is $2^3$?", "options": None, "label": None, "answer": "8",
         "other": {"solution": "It is $2 * 4 = 8$.", "level": 1, "type": "Algebra"}},
        "agieval", ("What is $2^3$?",), "number", (), "8", ("It is $2 * 4 = 8$.",),
    ),
    "AGIEval in a harness": (
        {"query": "Q: If x = 2, what is x + 1? Answer Choices: (A)3 (B)4\nA: Among A through B, the answer is",
         "choices": ["(A)3", "(B)4"], "gold": [0]},
        "agieval-query", ("If x = 2, what is x + 1?",), "choice", ("3", "4"), "A", None,
    ),
    "ANLI": (
        {"uid": "u1", "premise": "Ann was born in May.", "hypothesis": "Ann was born in spring.", "label": 1,
         "reason": "May is spring in the north only."},
        "nli", ("Ann was born in May.", "Ann was born in spring."), "choice", NLI, "B",
        ("May is spring in the north only.",),
    ),
    "ANLI, original": (
        {"uid": "u1", "context": "Ann sings.", "hypothesis": "Ann is silent.", "label": "c", "model_label": "n",
         "emturk": True, "genre": "wiki", "reason": "Singing is not silent.", "tag": "r1"},
        "nli", ("Ann sings.", "Ann is silent."), "choice", NLI, "C", ("Singing is not silent.",),
    ),
    "e-SNLI": (
        {"premise": "A man rides.", "hypothesis": "A man moves.", "label": 0, "explanation_1": "Riding is moving.",
         "explanation_2": "", "explanation_3": ""},
        "nli", ("A man rides.", "A man moves."), "choice", NLI, "A", ("Riding is moving.",),
    ),
    "e-SNLI, original": (
        {"pairID": "3#r1", "gold_label": "neutral", "Sentence1": "A man rides.", "Sentence2": "A man is tall.",
         "Explanation_1": "Riders can be short."},
        "nli", ("A man rides.", "A man is tall."), "choice", NLI, "B", ("Riders can be short.",),
    ),
    "SNLI without consensus": (
        {"gold_label": "-", "pairID": "p", "captionID": "c", "sentence1": "A dog runs.", "sentence2": "A cat runs.",
         "annotator_labels": ["neutral", "contradiction"]},
        "nli", ("A dog runs.", "A cat runs."), "choice", NLI, None, None,
    ),
    "RTE": (
        {"premise": "It rained.", "hypothesis": "It snowed.", "idx": 0, "label": "not_entailment"},
        "nli", ("It rained.", "It snowed."), "choice", ("entailment", "not_entailment"), "B", None,
    ),
    "MMLU": (
        {"question": "Find the degree of the extension.", "subject": "abstract_algebra",
         "choices": ["0", "4", "2", "6"], "answer": 2},  # an index, although 2 is also a choice
        "mmlu", ("Find the degree",), "choice", ("0", "4", "2", "6"), "C", None,
    ),
    "MMLU with columns": (
        {"Question": "Which planet is red?", "A": "Mars", "B": "Venus", "C": "Earth", "D": "Pluto", "Answer": "A",
         "Subject": "astronomy"},
        None, ("Which planet is red?",), "choice", ("Mars", "Venus", "Earth", "Pluto"), "A", None,
    ),
    "MMLU, input and target": (
        {"input": "Which planet is red?", "A": "Venus", "B": "Mars", "C": "Earth", "D": "Pluto", "target": "B"},
        "mmlu-input", ("Which planet is red?",), "choice", ("Venus", "Mars", "Earth", "Pluto"), "B", None,
    ),
    "MMLU-Pro": (
        {"question_id": 70, "question": "Which?", "options": [f"option {i}" for i in range(10)], "answer": "I",
         "answer_index": 8, "cot_content": "", "category": "business", "src": "x"},
        None, ("Which?",), "choice", tuple(f"option {i}" for i in range(10)), "I", None,
    ),
    "ARC": (
        {"id": "Mercury_1", "question": "What burns?", "choices": {"text": ["stone", "wood"], "label": ["1", "2"]},
         "answerKey": "2"},
        "commonsenseqa", ("What burns?",), "choice", ("stone", "wood"), "B", None,
    ),
    "ARC, original": (
        {"id": "Mercury_1", "answerKey": "B",
         "question": {"stem": "What burns?",
                      "choices": [{"text": "stone", "label": "A"}, {"text": "wood", "label": "B"}]}},
        "commonsenseqa", ("What burns?",), "choice", ("stone", "wood"), "B", None,
    ),
    "OpenBookQA": (
        {"id": "7-980", "question_stem": "The sun is responsible for", "answerKey": "A",
         "choices": {"text": ["plants", "puppies"], "label": ["A", "B"]}},
        "commonsenseqa", ("The sun is responsible for",), "choice", ("plants", "puppies"), "A", None,
    ),
    "LogiQA": (
        {"context": "All cats are grey.", "query": "Which follows?", "options": ["x", "y", "z"], "correct_option": 2},
        "logiqa", ("All cats are grey.", "Which follows?"), "choice", ("x", "y", "z"), "C", None,
    ),
    "LogiQA, index as text": (
        {"context": "All cats are grey.", "query": "Which follows?", "options": ["x", "y", "z"], "correct_option": "0"},
        "logiqa", ("All cats are grey.", "Which follows?"), "choice", ("x", "y", "z"), "A", None,
    ),
    "LogiQA, label": (
        {"label": "b", "context": "All cats are grey.", "question": "Which follows?", "options": ["x", "y"]},
        "logiqa-label", ("All cats are grey.", "Which follows?"), "choice", ("x", "y"), "B", None,
    ),
    "LogiQA 2.0": (
        {"id": 1, "answer": 1, "text": "All cats are grey.", "question": "Which follows?", "options": ["x", "y"],
         "type": {"Categorical Reasoning": True}},
        "logiqa2", ("All cats are grey.", "Which follows?"), "choice", ("x", "y"), "B", None,
    ),
    "ReClor": (
        {"context": "Sales rose.", "question": "Why?", "answers": ["ads", "luck"], "label": 1, "id_string": "train_0"},
        "reclor", ("Sales rose.", "Why?"), "choice", ("ads", "luck"), "B", None,
    ),
    "RACE": (
        {"example_id": "high1.txt", "article": "Ann went home.", "question": "Where is Ann?",
         "options": ["at school", "at home"], "answer": "B"},
        None, ("Ann went home.", "Where is Ann?"), "choice", ("at school", "at home"), "B", None,
    ),
    "CosmosQA": (
        {"id": "3Q9", "context": "It rained.", "question": "What happened?", "answer0": "Sun", "answer1": "Rain",
         "answer2": "Snow", "answer3": "None", "label": 1},
        "cosmosqa", ("It rained.", "What happened?"), "choice", ("Sun", "Rain", "Snow", "None"), "B", None,
    ),
    "SocialIQA": (
        {"context": "Tracy helped.", "question": "How does she feel?", "answerA": "bad", "answerB": "good",
         "answerC": "sick", "label": "2"},  # counts from 1
        "siqa", ("Tracy helped.", "How does she feel?"), "choice", ("bad", "good", "sick"), "B", None,
    ),
    "HellaSwag": (
        {"ind": 24, "activity_label": "Roof", "ctx_a": "A man sits on a roof.", "ctx_b": "he",
         "ctx": "A man sits on a roof. he", "endings": ["sings.", "sleeps."], "label": "1", "split": "val"},
        "hellaswag", ("A man sits on a roof. he",), "choice", ("sings.", "sleeps."), "B", None,
    ),
    "PIQA": (
        {"goal": "Boil an egg.", "sol1": "Use a pot.", "sol2": "Use a hat.", "label": 0},
        "piqa", ("Boil an egg.",), "choice", ("Use a pot.", "Use a hat."), "A", None,
    ),
    "WinoGrande": (
        {"sentence": "Ann beat Bea because _ was fast.", "option1": "Ann", "option2": "Bea", "answer": "1"},
        "winogrande", ("Ann beat Bea because _ was fast.",), "choice", ("Ann", "Bea"), "A", None,
    ),
    "COPA": (
        {"premise": "The lawn was wet.", "choice1": "It rained.", "choice2": "It was mown.", "question": "cause",
         "idx": 0, "label": 0},
        "copa", ("The lawn was wet.", "What was the cause of this?"), "choice", ("It rained.", "It was mown."), "A",
        None,
    ),
    "MedMCQA": (
        {"id": "e9", "question": "Which nerve?", "opa": "ulnar", "opb": "radial", "opc": "median", "opd": "axillary",
         "cop": 2, "choice_type": "single", "exp": "The median nerve runs there.", "subject_name": "Anatomy"},
        "medmcqa", ("Which nerve?",), "choice", ("ulnar", "radial", "median", "axillary"), "C",
        ("The median nerve runs there.",),
    ),
    "MedQA": (
        {"question": "Which drug?", "answer": "Aspirin", "options": {"A": "Codeine", "B": "Aspirin"},
         "meta_info": "step1", "answer_idx": "B"},
        None, ("Which drug?",), "choice", ("Codeine", "Aspirin"), "B", None,
    ),
    "MathQA": (
        {"Problem": "What is 5 % of 760?", "Rationale": "5 / 100 * 760 = 38", "correct": "a", "category": "gain",
         "options": "a ) 38 , b ) 27.675 , c ) none of these", "annotated_formula": "multiply(5, 760)"},
        "mathqa", ("What is 5 % of 760?",), "choice", ("38", "27.675", "none of these"), "A", ("5 / 100 * 760 = 38",),
    ),
    "AQuA": (
        {"question": "How far?", "options": ["A)21", "B)21.5", "C)22"], "rationale": "10 + 11 = 21\nANSWER:A",
         "correct": "A"},
        "aqua", ("How far?",), "choice", ("21", "21.5", "22"), "A", ("10 + 11 = 21",),
    ),
    "MATH": (
        {"problem": "What is $1+1$?", "level": "Level 1", "type": "Algebra",
         "solution": "[asy]\ndraw((0,0)--(1,1));\n[/asy]\nAdd: $1+1=2$.\nSo it is $\\boxed{2}$."},
        "math", ("What is $1+1$?",), "number", (), "2", ("Add: $1+1=2$.", "So it is $\\boxed{2}$."),
    ),
    "AIME": (
        {"ID": "2024-I-1", "Problem": "Find m+n.", "Solution": "Since m=1, n=2, it is 3.", "Answer": 3},
        "math", ("Find m+n.",), "number", (), "3", None,
    ),
    "BIG-bench Hard": (
        {"input": "Which is red?\nOptions:\n(A) grass\n(B) blood", "target": "(B)"},
        "bigbench", ("(A) grass\n(B) blood",), "choice", (), "B", None,
    ),
    "Alpaca": (
        {"instruction": "Add the numbers.", "input": "2, 3", "output": "2 + 3 = 5\nThe answer is 5."},
        "alpaca", ("Add the numbers.", "2, 3"), "number", (), "5", ("2 + 3 = 5",),
    ),
    "Alpaca without input": (
        {"instruction": "Name a color.", "input": "", "output": "Red"},
        "alpaca", ("Name a color.",), "text", (), "red", None,
    ),
    "Dolly": (
        {"instruction": "Where is it?", "context": "It is in Rome.", "response": "Rome", "category": "closed_qa"},
        "alpaca", ("Where is it?", "It is in Rome."), "text", (), "rome", None,
    ),
    "chat messages": (
        {"messages": [{"role": "system", "content": "Think step by step."},
                      {"role": "user", "content": "What is 2 + 3?"},
                      {"role": "assistant", "content": "<think>2 + 3 = 5</think>\n\n**Answer:** 5"}]},
        "chat", ("Think step by step.", "What is 2 + 3?"), "number", (), "5", ("2 + 3 = 5",),
    ),
    "ShareGPT": (
        {"id": "x", "conversations": [{"from": "human", "value": "What is 2 + 3?"}, {"from": "gpt", "value": "5"}]},
        "chat", ("What is 2 + 3?",), "number", (), "5", None,
    ),
    "chat of several turns": (
        {"messages": [{"role": "user", "content": "I have 2 pens."}, {"role": "assistant", "content": "Noted."},
                      {"role": "user", "content": [{"type": "text", "text": "And 3 more. How many?"}]},
                      {"role": "assistant", "content": "2 + 3 = 5\n#### 5"}]},
        "chat", ("User: I have 2 pens.", "Assistant: Noted.", "User: And 3 more. How many?"), "number", (), "5",
        ("2 + 3 = 5",),
    ),
    "prompt and completion": (
        {"prompt": "What is 2 + 3?", "completion": "2 + 3 = 5\nSo the answer is 5."},
        "prompt", ("What is 2 + 3?",), "number", (), "5", ("2 + 3 = 5",),
    ),
    "prompt and completion as chat": (
        {"prompt": [{"role": "user", "content": "What is 2 + 3?"}],
         "completion": [{"role": "assistant", "content": "It is \\boxed{5}."}]},
        "prompt", ("What is 2 + 3?",), "number", (), "5", ("It is \\boxed{5}.",),
    ),
    "preferences": (
        {"prompt": "Is ice cold?", "chosen": "Yes", "rejected": "No"},
        "prompt", ("Is ice cold?",), "boolean", (), "yes", None,
    ),
    "MetaMathQA": (
        {"query": "What is 2 + 3?", "response": "2 + 3 = 5\n#### 5\nThe answer is: 5", "type": "GSM_AnsAug",
         "original_question": "What is 2 + 3?"},
        "prompt", ("What is 2 + 3?",), "number", (), "5", ("2 + 3 = 5",),
    ),
    "OpenOrca": (
        {"id": "niv.1", "system_prompt": "You are a teacher.", "question": "What is 2 + 3?", "response": "It is 5."},
        "prompt", ("You are a teacher.", "What is 2 + 3?"), "text", (), "it is 5", None,
    ),
    "input and output": (
        {"input": "What is 2 + 3?", "output": "2 + 3 = 5\nThe answer is 5"},
        "prompt", ("What is 2 + 3?",), "number", (), "5", ("2 + 3 = 5",),
    ),
    "an answer that is a solution": (
        {"question": "What is 2 + 3?", "answer": "First 2, then 3.\nThe answer is 5."},
        None, ("What is 2 + 3?",), "number", (), "5", ("First 2, then 3.",),
    ),
    "SciQ": (
        {"question": "What falls?", "distractor1": "light", "distractor2": "sound", "distractor3": "ash",
         "correct_answer": "rain", "support": "Rain falls."},
        "sciq", ("Rain falls.", "What falls?"), "choice", ("ash", "light", "rain", "sound"), "C", None,
    ),
    "an essay": (
        {"prompt": "Write two lines.", "completion": "Roses are red,\nviolets are blue."},
        "prompt", ("Write two lines.",), "text", (), None, ("Roses are red,", "violets are blue."),
    ),
}  # fmt: skip


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_row_is_read_whole(tmp_path, name):
    row, layout, parts, kind, choices, answer, explanation = LAYOUTS[name]
    assert recognize(Row("", row)) == layout
    path = write(tmp_path / "pool.jsonl", row)
    for format in {"auto", layout or "jsonl"}:
        (question,) = read_pool(path, format)
        places = [question.text.find(part) for part in parts]
        assert -1 not in places
        assert places == sorted(places)
        assert (question.kind, question.choices) == (kind, choices)
        assert (question.answer, question.explanation) == (answer, explanation)


REWRITTEN = ("answer", "equation", "solution", "rationale", "query", "options", "output", "completion", "response")


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_text_is_read_or_named(tmp_path, caplog, name):
    row = LAYOUTS[name][0]
    with caplog.at_level(logging.WARNING):
        (question,) = read_pool(write(tmp_path / "pool.jsonl", row))
    read = " ".join((question.text, *question.choices, *(question.explanation or ()), question.skill or ""))
    unread = [field for field, value in row.items() if isinstance(value, str) and len(value) > 12 and value not in read]
    warnings = [record.getMessage() for record in caplog.records if "fields not used" in record.getMessage()]
    assert len(warnings) <= 1
    named = warnings[0].partition("fields not used: ")[2].partition(";")[0].split(", ") if warnings else []
    assert [field for field in unread if field not in named and field.casefold() not in REWRITTEN] == []
