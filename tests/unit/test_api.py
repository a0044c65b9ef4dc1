"""The Python API: lazy, typed, and the same results as the command line."""

import ast
import doctest
import json
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from fixtures.packages import make_package
from fixtures.students import StudentFolders, questions

import edgeelad
from edgeelad.api import distill as api_distill
from edgeelad.api import events as api_events
from edgeelad.api import score as api_score
from edgeelad.api import student as api_student
from edgeelad.config import PoolConfig, make_config
from edgeelad.engine.graph_files import find_graphs
from edgeelad.errors import ConfigError, ModelError, PackageError, PoolError, PromptTooLongError, UsageError
from edgeelad.progress import Silent
from edgeelad.scoring.score import score_pool
from edgeelad.uncertainty import Strategy

ASKED = "What is 3 + 4?"


@pytest.fixture(scope="module")
def package(students: StudentFolders) -> Path:
    return make_package(students)


# --- the names ------------------------------------------------------------------------------------------------------


def test_importing_loads_nothing_heavy_and_all_names_are_there() -> None:
    code = """
import sys
import edgeelad
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"numpy", "onnxruntime", "pydantic", "click", "rich", "tokenizers", "jinja2"}, loaded
assert "edgeelad.errors" not in sys.modules
assert set(edgeelad.__all__) <= set(dir(edgeelad))
assert edgeelad.errors.PoolError.__name__ == "PoolError"
for name in edgeelad.__all__:
    assert getattr(edgeelad, name) is getattr(edgeelad, name)
from edgeelad import *
assert score is edgeelad.score
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_type_checkers_and_users_see_the_same_names() -> None:
    tree = ast.parse(Path(edgeelad.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {name.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert set(typed) == set(edgeelad.__all__)
    assert {name: module for name, module in typed.items() if name != "errors"} == edgeelad._PLACES


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'edgeelad' has no attribute 'lod'"):
        edgeelad.lod  # noqa: B018


@pytest.mark.parametrize("module", [api_student, api_score, api_distill, api_events])
def test_the_examples_in_docstrings_run(module: types.ModuleType, package: Path) -> None:
    result = doctest.testmod(module, extraglobs={"edgeelad": edgeelad, "package": package})
    assert result.failed == 0
    assert result.attempted > 0 or module in (api_distill, api_events)


# --- a student ------------------------------------------------------------------------------------------------------


def test_a_package_explains_and_streams(package: Path) -> None:
    with edgeelad.load(package) as student:
        explanation = student.explain(ASKED)
        assert explanation.question == ASKED
        assert explanation.steps
        assert 0.0 < explanation.confidence <= 1.0
        assert "".join(student.stream(ASKED)) == explanation.text == str(explanation)
        assert student.explain(ASKED, max_tokens=2).finish_reason == "length"
        assert repr(student) == f"<edgeelad student 'tiny-edgeelad': int8, answers: number, from {package}>"
    student.close()
    with pytest.raises(UsageError, match="is closed; load it again"):
        student.explain(ASKED)
    with pytest.raises(UsageError, match="is closed; load it again"):
        student.stream(ASKED)


def test_it_answers_as_the_command_does(package: Path) -> None:
    command = [sys.executable, "-m", "edgeelad", "run", str(package), ASKED, "--json"]
    row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    with edgeelad.load(str(package)) as student:
        explanation = student.explain(ASKED)
    assert (row["text"], row["answer"], tuple(row["steps"])) == (
        explanation.text, explanation.answer, explanation.steps,
    )  # fmt: skip


def test_an_exported_folder_is_a_student_too(students: StudentFolders) -> None:
    with edgeelad.load(students.trained_onnx(), precision="int8") as student:
        assert (student.info.precision, student.info.answer_kind) == ("int8", "text")
        question = edgeelad.Question("q", ASKED, "number")
        assert student.explain(question).text


def test_what_is_no_student_is_said(package: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="no such folder; name a package or an exported student"):
        edgeelad.load(tmp_path / "none")
    with pytest.raises(ModelError, match=r"no model\.onnx"):
        edgeelad.load(tmp_path)
    with edgeelad.load(package) as student:
        with pytest.raises(UsageError, match="the question is empty"):
            student.explain(" \n")
        with pytest.raises(PromptTooLongError):
            student.explain("Why? " * 400)


def test_a_student_without_an_engine_graph_is_loaded_too(students: StudentFolders) -> None:
    with edgeelad.load(students.standard(students.trained())) as student:
        assert student.explain(ASKED).text


def test_what_is_broken_is_named_while_the_graph_opens_in_a_thread(students: StudentFolders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(students.trained_onnx(), tmp_path / "onnx"))
    graph, tokenizer = find_graphs(folder, "int8").engine, folder / "tokenizer.json"
    whole = graph.read_bytes()
    graph.write_bytes(whole[:1000])
    with pytest.raises(ModelError, match=re.escape(str(graph))):
        edgeelad.load(folder, precision="int8")
    graph.write_bytes(whole)
    tokenizer.write_text("{")
    with pytest.raises(ModelError, match="not a tokenizer"):
        edgeelad.load(folder, precision="int8")


# --- a pool ---------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_command_in_the_pools_order(package: Path, tmp_path: Path) -> None:
    texts = [question.text for question in questions(9)]
    texts[4:4] = ["Why? " * 400 + "Why?"]  # does not fit the student
    texts.append(texts[0])  # the same question again
    pool = tmp_path / "pool.jsonl"
    pool.write_text("".join(json.dumps({"question": text}) + "\n" for text in texts), encoding="utf-8")
    config: dict[str, Any] = {"branches": 2, "explanations": 2, "max_tokens": 24}
    score_pool(package, PoolConfig(path=str(pool)), tmp_path / "scores.jsonl", Silent(), strategy="elad", **config)
    expected = {row["id"]: row for row in map(json.loads, (tmp_path / "scores.jsonl").read_text().splitlines())}
    records = list(edgeelad.score(package, texts, "elad", num_workers=1, **config))
    assert [record.question.text for record in records] == texts
    assert len({record.question.id for record in records}) == len(texts)
    assert records[4].score is None
    assert records[4].reason == "prompt longer than the student's context"
    scored = [record for record in records if record.score is not None]
    assert len(scored) == len(expected) == len(texts) - 1
    for record in scored:
        row = expected[record.question.id]
        assert record.score == pytest.approx(row["score"], rel=1e-5)
        assert (list(record.steps), record.answer) == (row["steps"], row["answer"])
        assert [list(group) for group in record.branch_answers] == row["branch_answers"]


def test_two_workers_and_a_loaded_student_give_the_same(package: Path) -> None:
    pool = questions(100)
    options: dict[str, Any] = {"strategy": "least-confidence", "max_tokens": 6}
    with edgeelad.load(package) as student:
        alone = list(edgeelad.score(student, pool, num_workers=1, **options))
    assert list(edgeelad.score(package, iter(pool), num_workers=2, **options)) == alone


def test_a_pool_is_a_file_or_records(package: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_text('{"id": "a", "question": "What is 1 + 2?", "answer": "3"}\n', encoding="utf-8")
    from_file = list(edgeelad.score(package, pool, "max-entropy", num_workers=1))
    from_records = list(edgeelad.score(package, edgeelad.read_pool(pool), "max-entropy", num_workers=1))
    assert from_file == from_records
    assert from_file[0].question.answer == "3"


def test_rows_are_read_as_a_file_s_are(package: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "What is 1 + 2?", "answer": "3.0", "skill": "sums"},
        {"question": "Which is red?", "choices": ["sky", "blood"], "answer": "B"},
        {"question": "What is 1 + 2?"},
    ]
    pool = tmp_path / "pool.jsonl"
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    from_rows = list(edgeelad.score(package, iter(rows), "random", num_workers=1))
    assert from_rows == list(edgeelad.score(package, str(pool), "random", num_workers=1))
    assert [record.question.kind for record in from_rows] == ["number", "choice", "number"]
    assert from_rows[0].question.answer == "3"
    assert from_rows[2].question.id == f"{from_rows[0].question.id}-2"


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (3, "item 1 of the pool is int; expected"),
        (" ", "item 1 of the pool: field 'question': "),
        ({"qestion": "x"}, "item 1 of the pool: field 'question': "),
        (edgeelad.Question("a", ""), "item 1 of the pool: field 'text': empty"),
    ],
)
def test_items_that_are_no_questions_are_named(package: Path, item: Any, said: str) -> None:
    with pytest.raises(PoolError, match=said):
        list(edgeelad.score(package, [ASKED, item], "random", num_workers=1))


def test_a_strategy_of_ones_own(package: Path) -> None:
    seen = []

    def length(tree: edgeelad.ReasoningTree) -> float:
        """Number of characters."""
        seen.append(tree)
        return len(tree.text)

    (record,) = edgeelad.score(package, [ASKED], length, branches=2, explanations=2, num_workers=1)
    (tree,) = seen
    assert (record.score, record.strategy) == (len(tree.text), "length")
    assert record.num_tokens == tree.tokens.generated > 0
    assert record.branch_answers == tree.branch_answers != ()
    cheap = Strategy("steps", lambda tree, options: tree.num_steps + options.seed, "number of steps")
    (record,) = edgeelad.score(package, [ASKED], cheap, seed=5, num_workers=1)
    assert record.score == len(record.steps) + 5
    assert record.branch_answers == ()


@pytest.mark.parametrize(
    ("strategy", "error", "said"),
    [
        ("eald", ConfigError, "unknown name 'eald'; did you mean elad"),
        ("k-center", UsageError, "gives no scores"),
        (lambda tree: "high", ConfigError, "returned str for question .*; expected a number"),
        (lambda tree: float("nan"), ModelError, "score is nan"),
    ],
)
def test_strategies_that_cannot_be_used(package: Path, strategy: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        list(edgeelad.score(package, [ASKED], strategy, num_workers=1))


def test_mistakes_are_found_before_anything_is_scored(package: Path) -> None:
    with pytest.raises(ConfigError):
        edgeelad.score(package, [ASKED], "eald")
    with pytest.raises(UsageError, match="too many workers"):
        edgeelad.score(package, [ASKED], num_workers=10**6)


def test_questions_of_another_type_are_not_evaluated(package: Path, tmp_path: Path) -> None:
    said = "1 of 1 answers are of type boolean, and the student's are of type number; evaluate it on questions"
    data = tmp_path / "data.jsonl"
    data.write_text('{"question": "Is it wet?", "answer": true}\n', encoding="utf-8")
    for pool in (data, [edgeelad.Question("a", "Is it wet?", "boolean", answer="yes")]):
        with pytest.raises(PoolError, match=said):
            edgeelad.evaluate(package, pool, num_workers=1)


def test_a_student_of_texts_is_evaluated_on_other_types_with_a_warning(package: Path, tmp_path: Path) -> None:
    """It may have been taught several types, so this is no error."""
    texts = tmp_path / "texts"
    shutil.copytree(package, texts)
    manifest = json.loads((texts / "manifest.json").read_text(encoding="utf-8"))
    (texts / "manifest.json").write_text(json.dumps({**manifest, "answer_kind": "text"}), encoding="utf-8")
    said = "1 of 2 answers are of type boolean, and the student's are of type text: unless it was taught such questions"
    pool = [
        edgeelad.Question("a", "Is it wet?", "boolean", answer="yes"),
        edgeelad.Question("b", "Who?", "text", answer="ann"),
    ]
    assert [text for text in _warnings(texts, pool) if said in text]
    assert not _warnings(texts, pool[1:])


def _warnings(student: Path, pool: list[edgeelad.Question]) -> list[str]:
    events: list[edgeelad.Event] = []
    edgeelad.evaluate(student, pool, num_workers=1, on_event=events.append)
    return [event.text for event in events if isinstance(event, api_events.Warned)]


def test_evaluation_is_that_of_the_command(package: Path, tmp_path: Path) -> None:
    labeled = [edgeelad.Question(q.id, q.text, "number", answer=str(eval(q.id))) for q in questions(20)]
    data = tmp_path / "data.jsonl"
    rows = ({"id": q.id, "question": q.text, "answer": q.answer} for q in labeled)
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [sys.executable, "-m", "edgeelad", "eval", "--model", str(package), "--data", str(data), "--json"]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    events: list[edgeelad.Event] = []
    result = edgeelad.evaluate(package, labeled, max_tokens=256, num_workers=1, on_event=events.append)
    assert (result.accuracy, result.low, result.high) == (figures["accuracy"], figures["low"], figures["high"])
    assert 0 < result.accuracy < 1
    assert edgeelad.evaluate(package, data, max_tokens=256, num_workers=1) == result
    assert events[0] == edgeelad.StageStarted("Evaluating", 20)
    assert events[-2] == edgeelad.StageAdvanced("Evaluating", 20, 20)
    assert isinstance(events[-1], edgeelad.StageEnded)
    with pytest.raises(PoolError, match="no question has an answer"):
        edgeelad.evaluate(package, [ASKED], num_workers=1)


def test_without_a_listener_warnings_are_logged(package: Path, caplog: pytest.LogCaptureFixture) -> None:
    labeled = [edgeelad.Question("long", "Why? " * 400, answer="1"), edgeelad.Question("short", ASKED, answer="7")]
    assert edgeelad.evaluate(package, labeled, num_workers=1).num_questions == 1
    assert [record.getMessage() for record in caplog.records if record.name == "edgeelad"] == [
        "1 of 2 questions do not count: long: prompt longer than the student's context, …"
    ]


# --- a run ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key pol; did you mean pool"):
        edgeelad.distill({"pol": {}})
    with pytest.raises(ConfigError, match="no such configuration file"):
        edgeelad.distill(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="add resume=True"):
        edgeelad.distill(tmp_path)
    with pytest.raises(UsageError, match="resume needs the run folder"):
        edgeelad.distill({}, resume=True)
    pytest.importorskip("torch", reason="needs the distill extra")
    out = {"run": {"out": str(tmp_path / "run")}}
    with pytest.raises(ConfigError, match=r"pool\.path is not set"):
        edgeelad.distill(make_config(out))


def test_a_script_without_the_main_guard_is_told_so(package: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"import edgeelad\n"
        f"pool = [f'What is {{i}} + {{i}}?' for i in range(200)]\n"
        f"print(len(list(edgeelad.score({str(package)!r}, pool, 'max-entropy', max_tokens=8, num_workers=2))))\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in done.stderr
    assert "use fewer workers" not in done.stderr
    guarded = "if __name__ == '__main__':\n    " + script.read_text(encoding="utf-8").replace("\n", "\n    ")
    script.write_text(guarded, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "200\n"), done.stderr
