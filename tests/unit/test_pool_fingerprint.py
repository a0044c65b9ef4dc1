from dataclasses import replace

import pytest

from edgeelad.config import RunConfig, make_config
from edgeelad.errors import RunError
from edgeelad.pool.fingerprint import pool_fingerprint
from edgeelad.records import Example, Question
from edgeelad.stages.open_run import check_same, fingerprints

QUESTION = Question("a", "Where?", "choice", ("bank", "mall"), "A", ("Money is there.",), "places")
OTHER = Question("b", "How many?", "number", (), "5")
EDITS = {
    "id": {"id": "c"},
    "text": {"text": "Where not?"},
    "kind": {"kind": "text"},
    "choices": {"choices": ("bank", "shop")},
    "order of choices": {"choices": ("mall", "bank")},
    "split of choices": {"choices": ("bank", "mall", "")},
    "answer": {"answer": "B"},
    "no answer": {"answer": None},
    "skill": {"skill": "money"},
    "explanation": {"explanation": ("Money is kept there.",)},
}


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_of_a_question_changes_the_fingerprint(name):
    edited = replace(QUESTION, **EDITS[name])
    assert pool_fingerprint([QUESTION, OTHER]) != pool_fingerprint([edited, OTHER])
    asked = {"answers": False, "explanations": False}
    is_reference = name in ("answer", "no answer", "skill", "explanation")
    assert (pool_fingerprint([QUESTION], **asked) == pool_fingerprint([edited], **asked)) == is_reference


def test_order_and_number_count_and_fields_do_not_run_into_one_another():
    assert pool_fingerprint([QUESTION, OTHER]) != pool_fingerprint([OTHER, QUESTION])
    assert pool_fingerprint([QUESTION, OTHER])[1] == 2
    assert pool_fingerprint([Question("a", "b\0c")]) != pool_fingerprint([Question("a\0b", "c")])
    assert pool_fingerprint([Question("a", "x", answer="None")]) != pool_fingerprint([Question("a", "x")])


def resume(config: RunConfig, before: Question, now: Question) -> None:
    """Check a pool of one question against that of a run that began with another."""
    check_same(fingerprints(config, [before], None, ()), fingerprints(config, [now], None, ()), config)


@pytest.mark.parametrize("name", EDITS)
def test_a_run_does_not_resume_on_an_edited_pool(name):
    config = make_config({"pool": {"path": "pool.jsonl"}, "teacher": {"kind": "dataset"}})
    resume(config, QUESTION, replace(QUESTION))
    with pytest.raises(
        RunError, match=r"pool\.jsonl: pool\.path holds other questions than when this run began; restore"
    ):
        resume(config, QUESTION, replace(QUESTION, **EDITS[name]))


def test_explanations_count_where_the_pool_is_the_teacher():
    resume(make_config({"pool": {"path": "pool.jsonl"}}), QUESTION, replace(QUESTION, explanation=("Another.",)))


def test_the_test_file_and_the_seed_examples_count_too():
    config = make_config(
        {"pool": {"path": "p.jsonl", "test_path": "t.jsonl"}, "training": {"seed_examples": "s.jsonl"}}
    )
    seed = Example(OTHER, ("2 + 3 = 5",), "5")
    before = fingerprints(config, [QUESTION], [OTHER], [seed])
    check_same(before, fingerprints(config, [QUESTION], [OTHER], [seed]), config)
    with pytest.raises(RunError, match=r"t\.jsonl: pool\.test_path holds other questions"):
        check_same(before, fingerprints(config, [QUESTION], [replace(OTHER, answer="6")], [seed]), config)
    with pytest.raises(RunError, match=r"s\.jsonl: training\.seed_examples holds other questions"):
        check_same(before, fingerprints(config, [QUESTION], [OTHER], [replace(seed, steps=("5",))]), config)
