import dataclasses
import json

import pytest
from fixtures.chaos_server import ChaosServer
from fixtures.planted import make_questions, solver, student_of

from edgeelad.config import TeacherConfig
from edgeelad.errors import InputError, RunError, UsageError
from edgeelad.files import write_jsonl
from edgeelad.record_files import RowFile
from edgeelad.records import Annotation, Correction, Question
from edgeelad.run.annotations import FORMS, export_annotations
from edgeelad.teacher import open_teacher
from edgeelad.teacher.ledger.files import IMPORTED_RUN, export_ledger, import_ledger, ledger_stats, verify_ledger
from edgeelad.teacher.ledger.ledger import Ledger
from edgeelad.teacher.revision.annotate import annotate

PRICES = {"usd_per_million_prompt": 1.0, "usd_per_million_completion": 2.0}


@pytest.fixture(scope="module")
def bought(tmp_path_factory):
    """A ledger with 20 annotated questions, the annotations, and the configuration."""
    path = tmp_path_factory.mktemp("bought") / "ledger"
    questions, truth, trees = make_questions(20)
    with ChaosServer(respond=solver) as server:
        config = TeacherConfig(url=server.url, model="m", api_key_env="", mode="revise", **PRICES)
        with open_teacher(config, path, {}, run="r") as teacher:
            made = list(annotate(questions, trees, teacher, student_of(truth), config))
    return path, made, config


def test_stats(bought):
    stats = ledger_stats(bought[0])
    assert list(stats.by_run) == ["r"]
    assert stats.total.usage == stats.by_run["r"].usage
    assert {item.prompt_id for item in stats.by_prompt} == {"check"}
    assert sum(item.requests for item in stats.by_prompt) == stats.total.requests
    assert sum(item.cost_usd for item in stats.by_prompt) == pytest.approx(stats.total.usage.cost_usd)
    assert verify_ledger(bought[0]) == []


def test_an_export_moves_to_another_ledger_and_replays_there(bought, tmp_path):
    path, made, config = bought
    num = export_ledger(path, tmp_path / "out.jsonl")
    assert num == ledger_stats(path).total.replies
    assert import_ledger(tmp_path / "new", tmp_path / "out.jsonl") == num
    marked = tmp_path / "marked.jsonl"
    marked.write_bytes(b"\xef\xbb\xbf" + (tmp_path / "out.jsonl").read_bytes())
    assert import_ledger(tmp_path / "new", marked) == 0
    assert verify_ledger(tmp_path / "new") == []
    questions, truth, trees = make_questions(20)
    # the server is gone: all comes from the ledger
    with open_teacher(config, tmp_path / "new", {}, run="r") as teacher:
        again = list(annotate(questions, trees, teacher, student_of(truth), config))
        assert teacher.usage().requests == 0
    assert again == made
    assert list(ledger_stats(tmp_path / "new").by_run) == [IMPORTED_RUN]
    export_ledger(tmp_path / "new", tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_text() == (tmp_path / "out.jsonl").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: {**row, "request": row["request"].replace("Task", "Tusk")}, "was altered"),
        (lambda row: {**row, "content": 7}, "the field content"),
        (lambda row: {name: value for name, value in row.items() if name != "model"}, "the field model"),
        (lambda row: [row], "not a reply of an exported ledger"),
    ],
)
def test_an_altered_export_is_refused_whole(bought, tmp_path, change, message):
    export_ledger(bought[0], tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    write_jsonl(tmp_path / "bad.jsonl", [*rows[:5], change(rows[5])])
    with pytest.raises(InputError, match=f"bad.jsonl:6: .*{message}"):
        import_ledger(tmp_path / "new", tmp_path / "bad.jsonl")
    with Ledger(tmp_path / "new") as ledger:
        assert ledger.totals().requests == 0


def test_files_that_are_not_there(tmp_path):
    for work in (ledger_stats, verify_ledger, lambda path: export_ledger(path, tmp_path / "out")):
        with pytest.raises(InputError, match="no such ledger"):
            work(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be read"):
        import_ledger(tmp_path / "new", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_unusable_replies_are_not_exported(tmp_path):
    with ChaosServer(lambda number, body: "cut_off") as server:
        config = TeacherConfig(url=server.url, model="m", api_key_env="")
        with open_teacher(config, tmp_path / "l", {}) as teacher, pytest.raises(Exception, match="cut off"):
            teacher.answer(Question("q", "What?"))
    (stats,) = ledger_stats(tmp_path / "l").by_prompt
    assert (stats.requests, stats.replies, stats.unusable) == (2, 2, 2)
    assert export_ledger(tmp_path / "l", tmp_path / "out.jsonl") == 0


QUESTION = Question("q", "Which?", kind="choice", choices=("a", "b"), answer="B")
REVISED = Annotation(
    "q",
    "revised",
    "L3",
    ("One.", "Two right.", "Three."),
    "B",
    student_steps=("One.", "Two wrong.", "Three."),
    corrections=(Correction(1, "Two wrong.", "Two right.", "teacher"),),
)
ASIDE = Annotation("q", "set_aside", "", (), None, reason="no")
PROMPT = "Which?\n(A) a\n(B) b"
TEXT = "One.\nTwo right.\nThree.\nThe answer is B"


@pytest.mark.parametrize(
    ("form", "rows"),
    [
        ("sft", [{"messages": [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": TEXT}]}]),
        ("prompt-completion", [{"prompt": PROMPT, "completion": TEXT}]),
        (
            "stepwise",
            [
                {"prompt": PROMPT, "completions": ["One.", "Two right.", "Three."], "labels": [True, True, True]},
                {"prompt": PROMPT, "completions": ["One.", "Two wrong."], "labels": [True, False]},
            ],
        ),
        ("preference", [{"prompt": f"{PROMPT}\nOne.\n", "chosen": "Two right.", "rejected": "Two wrong."}]),
    ],
)
def test_forms(tmp_path, form, rows):
    out = tmp_path / "out.jsonl"
    assert export_annotations([(QUESTION, REVISED), (QUESTION, ASIDE)], form, out) == len(rows)
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows
    parquet = pytest.importorskip("pyarrow.parquet")
    export_annotations([(QUESTION, REVISED)], form, tmp_path / "out.parquet")
    assert parquet.read_table(tmp_path / "out.parquet").to_pylist() == rows


def test_a_correction_that_was_overtaken_is_no_preference(tmp_path):
    overtaken = dataclasses.replace(REVISED, steps=("One.", "Other."), rung="L5", status="rationale")
    assert export_annotations([(QUESTION, overtaken)], "preference", tmp_path / "out.jsonl") == 0
    assert export_annotations([(QUESTION, overtaken)], "stepwise", tmp_path / "out.jsonl") == 2
    own = dataclasses.replace(REVISED, corrections=(Correction(1, "Two wrong.", "Two right.", "student"),))
    assert export_annotations([(QUESTION, own)], "stepwise", tmp_path / "out.jsonl") == 1


def test_all_forms_take_all_that_was_made(bought, tmp_path):
    questions = {question.id: question for question in make_questions(20)[0]}
    pairs = [(questions[item.question_id], item) for item in bought[1]]
    for form in FORMS:
        assert export_annotations(pairs, form, tmp_path / "out.jsonl") > 0


def test_unknown_forms_and_endings(tmp_path):
    with pytest.raises(UsageError, match="expected one of sft"):
        export_annotations([], "alpaca", tmp_path / "out.jsonl")
    with pytest.raises(UsageError, match=r"\.jsonl or \.parquet"):
        export_annotations([], "sft", tmp_path / "out.csv")


def test_annotations_are_read_as_they_were_written(bought, tmp_path):
    file = RowFile(tmp_path / "a.jsonl", Annotation)
    file.write([*bought[1], REVISED, ASIDE])
    assert list(file.read()) == [*bought[1], REVISED, ASIDE]
    (tmp_path / "a.jsonl").write_text('{"question_id": "q"}\n')
    with pytest.raises(RunError, match=r"a\.jsonl:1: damaged \(field status is missing"):
        list(file.read())
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(RunError, match=r"a\.jsonl: missing"):
        list(file.read())
