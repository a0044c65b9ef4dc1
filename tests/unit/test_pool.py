import json
import logging
import tracemalloc
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeelad.config import PoolConfig, make_config
from edgeelad.errors import ConfigError, PoolError
from edgeelad.pool import FORMATS, Fields, load_pool, read_examples, read_pool
from edgeelad.pool.check import content_hash
from edgeelad.pool.published import PUBLISHED
from edgeelad.records import Example, Question

ROWS = [
    {"id": "a", "question": "What is 2 + 3?", "answer": "5", "explanation": "2 + 3 = 5\nThe answer is 5"},
    {"id": 7, "question": " Is it wet? ", "answer": True, "skill": "weather"},
    {"id": "c", "question": "Where do you read?", "choices": ["bank", "library"], "answer": "the library"},
    {"id": "d", "question": "Who wrote it?", "answer": "The  Brontës.", "explanation": ["first step", "second\nstep"]},
    {"id": "e", "question": "How many?", "answer": 1200.5},
]
QUESTIONS = [
    Question("a", "What is 2 + 3?", "number", (), "5", ("2 + 3 = 5",)),
    Question("7", "Is it wet?", "boolean", (), "yes", skill="weather"),
    Question("c", "Where do you read?", "choice", ("bank", "library"), "B"),
    Question("d", "Who wrote it?", "text", (), "brontës", ("first step", "second step")),
    Question("e", "How many?", "number", (), "1200.5"),
]


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# --- kinds of files -------------------------------------------------------------------------------------------------


def test_json_lines(tmp_path):
    assert list(read_pool(write(tmp_path / "pool.jsonl", lines(ROWS)))) == QUESTIONS
    assert list(read_pool(str(tmp_path / "pool.jsonl"), limit=2)) == QUESTIONS[:2]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_marks_do_not_matter(tmp_path, ending, mark):
    text = lines(ROWS).replace("\n", ending).rstrip()
    assert list(read_pool(write(tmp_path / "pool.jsonl", mark + text.encode()))) == QUESTIONS


@pytest.mark.parametrize("text", [lines(ROWS), json.dumps(ROWS), json.dumps(ROWS, indent=2), f"\n{json.dumps(ROWS)}\n"])
def test_json_holds_lines_or_an_array(tmp_path, text):
    assert list(read_pool(write(tmp_path / "pool.json", text))) == QUESTIONS


def test_csv_and_tsv(tmp_path):
    text = (
        "id,question,answer,choices,skill\r\n"
        'a,"What, exactly, is\n""2 + 3""?",5,,\r\n'
        "b,Where do you read?,library,bank|library,places\r\n"
        'c,Where do you bank?,A,"[""bank"", ""a | b""]",\r\n'
        "d,How many?,,,\r\n"
    )
    expected = [
        Question("a", 'What, exactly, is\n"2 + 3"?', "number", (), "5"),
        Question("b", "Where do you read?", "choice", ("bank", "library"), "B", skill="places"),
        Question("c", "Where do you bank?", "choice", ("bank", "a | b"), "A"),
        Question("d", "How many?", "text"),
    ]
    assert list(read_pool(write(tmp_path / "pool.csv", text))) == expected
    (question,) = read_pool(write(tmp_path / "pool.tsv", "question\tanswer\nHow many?\t5\n"))
    assert question.answer == "5"


@pytest.mark.parametrize("quote", ["", '"'])
def test_long_fields_in_csv(tmp_path, quote):
    text = "why " * 100_000 + "?"
    (question,) = read_pool(write(tmp_path / "pool.csv", f"question,answer\n{quote}{text}{quote},5\n"))
    assert question.text == text


def test_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [
        {"id": "a", "question": "What is 2 + 3?", "answer": "5", "choices": None, "explanation": ["2 + 3 = 5"]},
        {"id": "b", "question": "Where?", "answer": "B", "choices": ["bank", "library"], "explanation": None},
        {"id": "c", "question": "Who?", "answer": None, "choices": None, "explanation": None},
    ]
    path = tmp_path / "pool.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert list(read_pool(path)) == [
        QUESTIONS[0],
        Question("b", "Where?", "choice", ("bank", "library"), "B"),
        Question("c", "Who?", "text"),
    ]
    numbers = pyarrow.table({"question": ["One?", "Two?"], "answer": [1.0, float("nan")]})
    pyarrow.parquet.write_table(numbers, path)
    assert [question.answer for question in read_pool(path, kind="number")] == ["1", None]  # NaN is pandas' "missing"
    write(path, "no parquet")
    with pytest.raises(PoolError, match=r"pool\.parquet: not a readable parquet file"):
        read_pool(path)


def write_table(path, columns, **types):
    import pyarrow
    import pyarrow.parquet

    arrays = {name: pyarrow.array(values, types.get(name)) for name, values in columns.items()}
    pyarrow.parquet.write_table(pyarrow.table(arrays), path)
    return path


@pytest.mark.parametrize("num_bits", [16, 32])
def test_short_floats_are_the_numbers_that_they_are_written_as(tmp_path, num_bits):
    import pyarrow

    short = {16: pyarrow.float16(), 32: pyarrow.float32()}[num_bits]
    columns = {
        "question": ["One?", "Two?", "Three?", "Four?"],
        "answer": np.array([0.1, 2.5, 3, np.nan], f"float{num_bits}"),
        "choices": [None, None, None, np.array([0.1, 0.2], f"float{num_bits}")],
        "more": [{"value": np.float16(1) if num_bits == 16 else 1.0}, None, None, None],
    }
    types = {"choices": pyarrow.list_(short), "more": pyarrow.struct({"value": short})}
    path = write_table(tmp_path / "pool.parquet", columns, **types)
    questions = list(read_pool(path))
    assert [question.answer for question in questions] == ["0.1", "2.5", "3", None]
    assert questions[3].choices == ("0.1", "0.2")
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_parquet(str(path)).save_to_disk(str(tmp_path / "saved"))
    assert list(read_pool(tmp_path / "saved")) == questions


def test_decimals_are_numbers(tmp_path):
    answers = [Decimal("5.00"), Decimal("0.10"), Decimal("12345678901234567.25"), None]
    columns = {"question": [f"{number}?" for number in range(4)], "answer": answers, "id": list(map(Decimal, range(4)))}
    questions = list(read_pool(write_table(tmp_path / "pool.parquet", columns), kind="number"))
    assert [question.answer for question in questions] == ["5", "0.1", "12345678901234567.25", None]
    assert [question.id for question in questions] == ["0", "1", "2", "3"]


def test_text_in_parquet_that_is_not_utf8_is_named_with_its_row_and_field(tmp_path):
    import pyarrow

    texts = pyarrow.array([b"Good?"] * 1500 + [b"caf\xe9?"])
    columns = {"question": pyarrow.Array.from_buffers(pyarrow.string(), len(texts), texts.buffers())}
    path = write_table(tmp_path / "pool.parquet", columns | {"answer": ["5"] * len(texts)})
    questions = read_pool(path)
    with pytest.raises(PoolError, match=r"pool\.parquet: row 1501: field 'question': not UTF-8; write the file again"):
        list(questions)


def test_a_dataset_saved_on_disk_and_a_folder_of_data_files(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"question": "What is 2 + 3?", "answer": "5"}, {"question": "And 3 + 4?", "answer": "7"}]
    dataset = datasets.Dataset.from_list(rows)
    dataset.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": dataset, "test": dataset.select([1])}).save_to_disk(str(tmp_path / "two"))
    assert [question.answer for question in read_pool(tmp_path / "one")] == ["5", "7"]
    assert [question.answer for question in read_pool(tmp_path / "two", "hf", split="test")] == ["7"]
    with pytest.raises(PoolError, match=r"no split 'dev'; it has train, test"):
        read_pool(tmp_path / "two", split="dev")
    (tmp_path / "three").mkdir()
    write(tmp_path / "three" / "train.jsonl", lines(rows))
    assert [question.answer for question in read_pool(tmp_path / "three", "hf")] == ["5", "7"]


def test_a_dataset_by_name(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        if args[0] == "nobody/nothing":
            raise ConnectionError("no network\nhere")
        return [{"question": "What is 2 + 3?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    (question,) = read_pool("openai/gsm8k:main", split="test")
    assert (question.answer, question.explanation) == ("5", ("2 + 3 = 5",))
    assert asked == [(("openai/gsm8k", "main"), {"split": "test", "streaming": True})]
    with pytest.raises(PoolError, match=r"nobody/nothing: the dataset cannot be read.*no network here.*check the name"):
        read_pool("nobody/nothing")


def test_other_field_names(tmp_path):
    path = write(tmp_path / "pool.jsonl", lines([{"q": "How many?", "a": "5", "why": "2 + 3 = 5", "question": 3}]))
    (question,) = read_pool(path, fields=Fields(("q",), answer="a", explanation="why"))
    assert (question.text, question.answer, question.explanation) == ("How many?", "5", ("2 + 3 = 5",))
    config = PoolConfig(path=str(path), question_fields=("q",), answer_field="a", kind="text")
    assert [(q.kind, q.answer) for q in load_pool(config)] == [("text", "5")]
    with pytest.raises(PoolError, match=r"pool\.jsonl:1: field 'anwser': missing; the row has q, a, why, question"):
        list(read_pool(path, fields=Fields(("q",), answer="anwser")))


def read_one(tmp_path, row, **given):
    (question,) = read_pool(write(tmp_path / "pool.jsonl", lines([row])), **given)
    return question


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records]


def test_several_fields_make_up_a_question(tmp_path):
    row = {"story": "  He has 3.", "ask": "How many?", "extra": 7}
    assert read_one(tmp_path, row, fields=Fields(("story", "ask"))).text == "He has 3.\n\nHow many?"
    assert read_one(tmp_path, row, fields=Fields(("ask",))).text == "How many?"
    assert read_one(tmp_path, row, fields=Fields(("extra", "ask"))).text == "7\n\nHow many?"
    template = "{story}\nQ: {ask} ({extra})"
    assert read_one(tmp_path, row, fields=Fields(template=template)).text == "He has 3.\nQ: How many? (7)"
    for empty in ("", None, " \u200b"):
        row = {"story": empty, "ask": "How many?"}
        assert read_one(tmp_path, row, fields=Fields(("story", "ask"))).text == "How many?"
        with pytest.raises(PoolError, match=r"pool\.jsonl:1: field 'story': (empty|expected text)"):
            read_one(tmp_path, row, fields=Fields(("ask", "story")))
        with pytest.raises(PoolError, match=r"pool\.jsonl:1: field 'story': empty"):
            read_one(tmp_path, row, fields=Fields(template="Q: {story}"))
    for fields in (Fields(("stroy", "ask")), Fields(template="{stroy}")):
        with pytest.raises(
            PoolError, match=r":1: field 'stroy': missing; the row has story, ask: name the right field"
        ):
            read_one(tmp_path, row, fields=fields)
    with pytest.raises(PoolError, match="the question's template names no field; write one in braces"):
        read_one(tmp_path, row, fields=Fields(template="What?"))
    nested = {"ask": {"text": "How many?"}, "reply": {"value": [5]}}
    question = read_one(tmp_path, {**nested, "reply": {"value": 5}}, fields=Fields(("ask.text",), answer="reply.value"))
    assert (question.text, question.answer) == ("How many?", "5")


def test_a_configuration_names_the_fields(tmp_path):
    path = write(tmp_path / "pool.jsonl", lines([{"story": "He has 3.", "ask": "How many?", "right": 3}]))
    for named in ({"question_fields": ["story", "ask"]}, {"question_template": "{story}\n\n{ask}"}):
        config = make_config({"pool": {"path": str(path), "answer_field": "right", **named}})
        (question,) = load_pool(config.pool)
        assert (question.text, question.answer) == ("He has 3.\n\nHow many?", "3")
    config = make_config({"pool": {"path": str(path), "question_field": "ask"}})
    assert config.pool.question_fields == ("ask",)
    with pytest.raises(ConfigError, match="question_fields and question_template exclude each other; give one"):
        make_config({"pool": {"question_fields": ["ask"], "question_template": "{ask}"}})


def test_a_passage_beside_the_question_belongs_to_it(tmp_path):
    for name in ("passage", "context", "article", "body", "story", "Background"):
        row = {"question": "Where?", name: "He went home.", "answer": "home"}
        assert read_one(tmp_path, row).text == "He went home.\n\nWhere?"
        assert read_one(tmp_path, {**row, name: None}).text == "Where?"
        assert read_one(tmp_path, row, fields=Fields(("question",))).text == "Where?"
    lists = {"question": "Where?", "context": ["He rose.", "He went home."]}
    assert read_one(tmp_path, lists).text == "He rose.\nHe went home.\n\nWhere?"
    assert read_one(tmp_path, {"QUESTION": "Where?", "Answer": "home"}).answer == "home"


def test_fields_that_are_not_used_are_named_once_in_one_line(tmp_path, caplog):
    rows = [{"question": f"How many {i}?", "answer": i, "Hint": "count", "source": "x", "empty": ""} for i in range(3)]
    path = write(tmp_path / "pool.jsonl", lines(rows))
    list(read_pool(path))
    assert warnings_of(caplog) == [
        f"{path}: fields not used: Hint, source; if they belong to the question, name all of its parts in order with "
        "--question-field (pool.question_fields)"
    ]
    caplog.clear()
    list(read_pool(path, is_known=True))
    list(read_pool(path, fields=Fields(template="{Hint} {source} {question}")))
    assert warnings_of(caplog) == []
    read_one(tmp_path, {"question": "How many?", "choices": ["5", "6"], "answer": 5}, kind="number")
    assert "fields not used: choices" in caplog.text


def test_a_published_layout_knows_its_fields(tmp_path):
    with pytest.raises(PoolError, match="--format gsm8k knows its fields: leave out the names of fields, or name the"):
        read_one(tmp_path, {"question": "?", "answer": "#### 5"}, format="gsm8k", fields=Fields(answer="answer"))


@pytest.mark.parametrize(
    ("choices", "answer", "expected"),
    [
        (["bank", "mall"], 1, "B"),
        (["bank", "mall"], "0", "A"),
        (["5", "11"], 11, "B"),
        (["5", "11"], "(b)", "B"),
        ([2, 1, 0], "1", "B"),
        ({"A": "bank", "B": "mall"}, "B", "B"),
        ({"text": ["bank", "mall"], "label": ["1", "2"]}, "2", "B"),
        ([{"label": "X", "text": "bank"}, {"label": "Y", "text": "mall"}], "Y", "B"),
        (["(A) bank", "(B) mall"], "mall", "B"),
        ("['bank', 'mall']", "mall", "B"),
        ('{"A": "bank", "B": "mall"}', "B", "B"),
        ('[{"label": "1", "text": "bank"}, {"label": "2", "text": "mall"}]', "2", "B"),
        (["-1", "1"], "-1", "A"),
        (["bank", "mall"], -1, None),
    ],
)
def test_the_right_choice_is_told_by_label_text_or_index(tmp_path, choices, answer, expected):
    question = read_one(tmp_path, {"question": "?", "choices": choices, "answer": answer})
    assert (question.kind, question.answer) == ("choice", expected)


def test_an_index_is_told_and_never_guessed(tmp_path, caplog):
    for choices, answer, message in (
        (["1", "2", "0"], 1, r"1 is the index of \(B\) and the text of \(A\); write the choice's label"),
        (["a", "b"], 2, "'2' is not one of the choices, nor the index of one, from 0"),
        ({"A": "a", "B": "b"}, "C", "'C' is none of the labels A, B"),
        (["a", "b"], [0, 1], "2 right choices; keep one"),
    ):
        with pytest.raises(PoolError, match=":1: field 'answer': " + message):
            read_one(tmp_path, {"question": "?", "choices": choices, "answer": answer})
    caplog.clear()
    list(read_pool(write(tmp_path / "p.jsonl", lines([{"question": "?", "choices": ["a", "b"], "answer": 1}] * 2))))
    assert [text for text in warnings_of(caplog) if "index" in text] == [
        f"{tmp_path / 'p.jsonl'}: answers that are whole numbers are read as the index of the right choice, from 0"
    ]


def test_digits_in_csv_may_be_an_index_too(tmp_path):
    def answer(choices, right):
        (question,) = read_pool(write(tmp_path / "pool.csv", f"question,A,B,C,D,answer\n?,{choices},{right}\n"))
        return question.answer

    with pytest.raises(PoolError, match=r"pool\.csv:2: field 'answer': 2 is the index of \(C\) and the text of \(B\)"):
        answer("1,2,3,4", "2")
    assert answer("1,2,3,4", "B") == "B"
    assert answer("1,2,3,4", "4") == "D"  # not an index
    assert answer("0,1,2,3", "2") == "C"  # the same choice
    assert answer("a,b,c,d", "2") == "C"
    # quoted digits in JSON are text
    assert read_one(tmp_path, {"question": "?", "choices": ["1", "2", "3", "4"], "answer": "2"}).answer == "B"


def test_a_default_kind_holds_for_what_does_not_tell_its_own(tmp_path):
    def kind(default, **row):
        return read_one(tmp_path, {"question": "?", **row}, default_kind=default).kind

    assert kind("number") == "number"
    assert kind("number", answer="12 (apples)") == "number"
    assert kind("number", answer="Paris") == "text"
    assert kind("number", answer="a", choices=["a", "b"]) == "choice"
    assert kind("number", choices=["a", "b"]) == "choice"
    assert kind("boolean", answer=True) == "boolean"
    assert kind("text", answer="5") == "number"  # a package of several kinds says text
    assert kind("text") == "text"


def test_a_kind_that_is_given_holds_for_every_row(tmp_path):
    path = write(tmp_path / "pool.jsonl", lines([{"question": "How many?", "answer": "11", "choices": ["5", "11"]}]))
    assert [(q.kind, q.answer, q.choices) for q in read_pool(path)] == [("choice", "B", ("5", "11"))]
    assert [(q.kind, q.answer, q.choices) for q in read_pool(path, kind="number")] == [("number", "11", ())]


def test_a_pool_without_answers_says_that_kinds_are_unknown(tmp_path, caplog):
    path = write(tmp_path / "pool.jsonl", lines([{"question": "How many?"}, {"question": "How few?"}]))
    with caplog.at_level(logging.WARNING):
        assert [question.kind for question in read_pool(path)] == ["text", "text"]
    assert len(caplog.records) == 1
    assert "pool.kind" in caplog.text
    caplog.clear()
    assert [question.kind for question in read_pool(path, kind="number")] == ["number", "number"]
    assert not caplog.records


def test_examples_have_steps_and_an_answer(tmp_path):
    path = write(tmp_path / "seeds.jsonl", lines(ROWS[:1]))
    assert read_examples(path) == [Example(QUESTIONS[0], ("2 + 3 = 5",), "5")]
    with pytest.raises(PoolError, match=r"seeds\.jsonl:2: field 'explanation': missing or empty"):
        read_examples(write(path, lines(ROWS[:2])))
    with pytest.raises(PoolError, match=r"seeds\.jsonl:1: field 'answer': missing or empty"):
        read_examples(write(path, lines([{"question": "?", "explanation": "so"}])))


# --- missing and infinite numbers -----------------------------------------------------------------------------------


def as_parquet(path, column, values):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(
        pyarrow.table({"question": [f"Q{i}?" for i in range(len(values))], column: values}), path
    )
    return path


@pytest.mark.parametrize("column", ["answer", "id", "skill"])
def test_nan_is_missing_in_every_kind_of_file(tmp_path, column):
    values = [1.0, float("nan"), 2.0]
    rows = [{"question": f"Q{i}?", column: value} for i, value in enumerate(values)]
    table = "".join(f"Q{i}?,{value}\n" for i, value in enumerate(["1", "NaN", "2"]))
    for path in (
        write(tmp_path / "pool.jsonl", lines(rows)),
        write(tmp_path / "pool.json", json.dumps(rows)),
        write(tmp_path / "pool.csv", f"question,{column}\n{table}"),
        as_parquet(tmp_path / "pool.parquet", column, values),
    ):
        questions = list(read_pool(path))
        assert len(questions) == 3
        if column == "id":
            assert [questions[0].id, questions[2].id, len(questions[1].id)] == ["1", "2", 16]
        else:
            assert getattr(questions[1], column) is None
            assert getattr(questions[0], column) is not None


@pytest.mark.parametrize("column", ["answer", "id", "question", "passage"])
def test_an_infinite_number_is_refused_in_every_kind_of_file(tmp_path, column):
    rows = [{"question": "Q?", column: "1"}, {"question": "Q?", column: float("inf")}]
    named = "question" if column == "question" else f"question,{column}"
    table = "Q?\ninf\n" if column == "question" else "Q?,x\nQ?,inf\n"
    paths = [
        write(tmp_path / "pool.jsonl", lines(rows)),
        write(tmp_path / "pool.json", json.dumps(rows, indent=1)),
        write(tmp_path / "pool.csv", f"{named}\n{table}"),
    ]
    if column not in ("question", "passage"):
        paths.append(as_parquet(tmp_path / "pool.parquet", column, [1.0, float("inf")]))
    for path in paths:
        with pytest.raises(PoolError, match=rf"pool\.\w+: ?.*\d+: field '{column}': an infinite number|row 2: field"):
            list(read_pool(path, fields=Fields(("passage", "question")) if column == "passage" else Fields()))


# --- odd characters, nested documents, named classes ----------------------------------------------------------------


def test_unusual_line_separators_do_not_end_a_line(tmp_path):
    text = "One\u2028two\u0085three?"
    row = {"question": text, "choices": ["a\u2028b", "c"], "answer": "c", "explanation": ["x\u0085y"]}
    for path in (
        write(tmp_path / "pool.jsonl", "\ufeff" + lines([row]) + "\ufeff" + lines([{**row, "question": "Next?"}])),
        write(tmp_path / "pool.json", "\ufeff" + json.dumps([row, {**row, "question": "Next?"}], ensure_ascii=False)),
    ):
        first, second = read_pool(path)
        assert (first.text, first.choices, first.answer) == (text, ("a b", "c"), "B")
        assert second.text == "Next?"
    table = f"\ufeffquestion,answer\r\n{text},5\r\nNext?,6\r\n"
    assert [q.text for q in read_pool(write(tmp_path / "pool.csv", table))] == [text, "Next?"]


def test_asdiv_as_its_authors_publish_it(tmp_path):
    problem = (
        '<Problem ID="{id}" Grade="1" Source="http://x"><Body>Two red &amp; 3 blue pens.</Body>'
        "<Question>How many pens?</Question>\n<Solution-Type>Addition</Solution-Type>"
        "<Answer>5 (pens)</Answer><Formula>2+3=5</Formula></Problem>"
    )
    text = '<?xml version="1.0" encoding="UTF-8"?>\n<Corpus><ProblemSet>{}{}</ProblemSet>\n</Corpus>'
    path = write(tmp_path / "ASDiv.xml", text.format(problem.format(id="n1"), problem.format(id="n2")))
    questions = list(read_pool(path))
    assert [(q.id, q.kind, q.answer, q.explanation, q.skill) for q in questions] == [
        (id_, "number", "5", ("2+3=5",), "Addition") for id_ in ("n1", "n2")
    ]
    assert {q.text for q in questions} == {"Two red & 3 blue pens. How many pens?"}
    for head in (
        '<?xml version="1.0" encoding="ISO-8859-1"?>',
        "\ufeff<?xml version='1.0'?>",
    ):  # UTF-8, whatever it says
        path = write(tmp_path / "other.xml", f"{head}<rows><row><question>Où?</question></row></rows>")
        assert [q.text for q in read_pool(path)] == ["Où?"]


def test_squad_and_drop_as_their_authors_nest_them(tmp_path):
    answers = [{"text": "the dome", "answer_start": 3}]
    paragraph = {"context": "On the dome.", "qas": [{"id": "1", "question": "Where?", "answers": answers}]}
    squad = {"version": "1.1", "data": [{"title": "T", "paragraphs": [paragraph, {"context": "X.", "qas": []}]}]}
    pairs = [
        {"question": "How many?", "query_id": "a", "answer": {"number": "3", "date": {}, "spans": []}},
        {"question": "Who?", "query_id": "b", "answer": {"number": "", "date": {}, "spans": ["Ann", "Bo"]}},
    ]
    drop = {"nfl_1": {"passage": "They won.", "qa_pairs": pairs, "wiki_url": "x"}}
    for indent in (None, 1):
        path = write(tmp_path / "squad.json", json.dumps(squad, indent=indent))
        assert [(q.text, q.answer) for q in read_pool(path)] == [("On the dome.\n\nWhere?", "dome")]
        path = write(tmp_path / "drop.json", json.dumps(drop, indent=indent))
        assert [(q.id, q.text, q.answer) for q in read_pool(path)] == [
            ("a", "They won.\n\nHow many?", "3"),
            ("b", "They won.\n\nWho?", "ann bo"),
        ]
    table = {"one": {"question": "How many?", "answer": 5}, "two": {"question": "Who?", "answer": "Ann"}}
    path = write(tmp_path / "table.json", json.dumps(table))
    assert [(q.id, q.answer) for q in read_pool(path)] == [("one", "5"), ("two", "ann")]
    with pytest.raises(PoolError, match=r"squad\.json: example 1, paragraph 1: field 'qas': expected a list"):
        list(read_pool(write(tmp_path / "squad.json", json.dumps({"data": [{"paragraphs": [{"context": ""}]}]}))))


def test_named_classes_are_read_by_their_names(tmp_path):
    datasets = pytest.importorskip("datasets")
    row = {"premise": "It rained.", "hypothesis": "It snowed."}
    names = ["entailment", "contradiction", "neutral"]  # CB's order, which is not SNLI's
    features = datasets.Features(
        {key: datasets.Value("string") for key in row} | {"label": datasets.ClassLabel(names=names)}
    )
    rows = [{**row, "label": 1}, {**row, "label": 2}, {**row, "label": -1}]
    dataset = datasets.Dataset.from_list(rows, features=features)
    dataset.save_to_disk(str(tmp_path / "saved"))
    dataset.to_parquet(str(tmp_path / "pool.parquet"))
    for path in (tmp_path / "saved", tmp_path / "pool.parquet"):
        questions = list(read_pool(path))
        assert [q.choices for q in questions] == [tuple(names)] * 3
        assert [q.answer for q in questions] == ["B", "C", None]


def test_mmlu_has_no_header(tmp_path):
    text = 'Which planet is red?,Venus,Mars,"Earth, our own",Pluto,B\nWhich is ours?,Venus,Mars,Earth,NaN,C\n'
    first, second = read_pool(write(tmp_path / "astronomy_test.csv", text))
    assert (first.text, first.choices[1:3], first.answer) == ("Which planet is red?", ("Mars", "Earth, our own"), "B")
    assert (second.choices, second.answer) == (("Venus", "Mars", "Earth"), "C")
    header = "question,A,B,C,D,answer\nWhich?,1,2,3,4,B\n"
    assert [q.text for q in read_pool(write(tmp_path / "p.csv", header))] == ["Which?"]
    with pytest.raises(PoolError, match=r"p\.csv:2: field 'A': an empty choice before others"):
        list(read_pool(write(tmp_path / "p.csv", "question,A,B,C,D,answer\nWhich?,,2,3,4,B\n")))


def test_a_drawing_is_no_step(tmp_path):
    drawing = "[asy]\n" + "draw((0,0)--(1,1));\n" * 100 + "[/asy]"
    row = {"question": "?", "answer": 5, "explanation": f"2 + 3\n{drawing}\nis 5 [asy] for"}
    assert read_one(tmp_path, row).explanation == ("2 + 3", "is 5 [asy] for")
    huge = as_parquet(tmp_path / "pool.parquet", "explanation", ["x" * 10_000_000])
    with pytest.raises(PoolError, match=r"row 1: field 'explanation': 10,000,000 characters; shorten it to 1,000,000"):
        list(read_pool(huge))


# --- ids ------------------------------------------------------------------------------------------------------------


def test_questions_without_an_id_get_a_hash_of_their_content(tmp_path):
    rows = [{"question": "How many?"}, {"question": "How  many? "}, {"question": "How many?", "choices": ["1", "2"]}]
    first, again, other = (question.id for question in read_pool(write(tmp_path / "pool.jsonl", lines(rows))))
    assert len(first) == 16
    assert again == f"{first}-2"
    assert other not in (first, again)
    reversed_ids = {q.id for q in read_pool(write(tmp_path / "pool.jsonl", lines(rows[::-1])))}
    assert reversed_ids == {first, again, other}
    assert content_hash(Question("x", "Cafe\u0301?")) == content_hash(Question("y", "Caf\u00e9?"))


def test_memory_does_not_grow_with_the_pool_but_for_ids(tmp_path):
    path = tmp_path / "pool.jsonl"
    with path.open("w") as file:
        for i in range(5_000):
            file.write(json.dumps({"id": str(i), "question": "word " * 400, "answer": str(i)}) + "\n")
    tracemalloc.start()
    assert sum(1 for _ in read_pool(path)) == 5_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 10_000_000
    assert peak < 3_000_000


# --- bad input ------------------------------------------------------------------------------------------------------

GOOD = '{"id": "a", "question": "How many?"}\n'
BAD_LINES = {
    "not JSON": ('{"question": "How', r":2: not JSON \(Unterminated string.*column 14\); correct the line"),
    "a list": ("[1]", ":2: expected a JSON object, found a list; write one object per line"),
    "a number": ("5", ":2: expected a JSON object, found a number"),
    "missing question": ('{"text": "How?"}', ":2: field 'question': missing; the row has text: name the right field"),
    "empty question": ('{"question": "  "}', ":2: field 'question': empty; fill it in"),
    "question of wrong type": ('{"question": 5}', ":2: field 'question': expected text, found a number; put it in"),
    "null question": ('{"question": null}', ":2: field 'question': expected text, found null"),
    "duplicate id": ('{"id": "a", "question": "Who?"}', ":2: field 'id': 'a' is also the id of question 1; give each"),
    "id of wrong type": (
        '{"id": [], "question": "?"}',
        ":2: field 'id': expected text or a whole number, found a list",
    ),
    "empty id": ('{"id": " ", "question": "?"}', ":2: field 'id': empty"),
    "answer of wrong type": ('{"question": "?", "answer": ["5"]}', ":2: field 'answer': expected text or a number"),
    "choices of wrong type": ('{"question": "?", "choices": 5}', ":2: field 'choices': expected a list of texts"),
    "choices of mixed types": ('{"question": "?", "choices": ["a", null]}', ":2: field 'choices': expected a list of"),
    "one choice": ('{"question": "?", "choices": ["a"]}', ":2: field 'choices': only one choice"),
    "an empty choice": ('{"question": "?", "choices": ["a", " "]}', ":2: field 'choices': an empty choice"),
    "too many choices": (json.dumps({"question": "?", "choices": ["a"] * 27}), ":2: field 'choices': 27 choices"),
    "no such choice": (
        '{"question": "?", "choices": ["a", "b"], "answer": "river"}',
        ":2: field 'answer': 'river' is not one of the choices; correct it, leave it out, or set the answer type",
    ),
    "answer in an object": (
        '{"question": "?", "answer": {"value": "5"}}',
        ":2: field 'answer': expected text or a number, found an object; give one value, or name .* answer.value",
    ),
    "explanation of wrong type": ('{"question": "?", "explanation": 5}', ":2: field 'explanation': expected text or a"),
    "half a character": (r'{"question": "\ud800?"}', r":2: field 'question': holds half a character \(\\ud800\)"),
    "NUL character": (r'{"question": "a\u0000b"}', ":2: field 'question': holds a NUL character; remove it"),
    "NUL byte": ('{"question": "a\0b"}', ":2: a NUL byte: the file is binary or damaged"),
    "a number without end": ('{"question": "?", "answer": -Infinity}', ":2: field 'answer': an infinite number; write"),
    "a repeated key": ('{"question": "?", "question": "!"}', ":2: JSON that cannot be used .*'question' occurs twice"),
    "thousands of digits": ('{"question": "?", "answer": ' + "1" * 5000 + "}", ":2: JSON that cannot be used"),
    "thousands of brackets": ("[" * 100_000, ":2: JSON that cannot be used"),
    "a line of 10 MB": (
        '{"question": "' + "a" * 10_000_000 + '"}',
        ":2: a line of over 1 MB; write one question per line",
    ),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_named_with_its_remedy(tmp_path, name):
    line, message = BAD_LINES[name]
    path = write(tmp_path / "pool.jsonl", GOOD + line + "\n" + GOOD.replace("a", "z"))
    with pytest.raises(PoolError, match=r"pool\.jsonl" + message) as caught:
        list(read_pool(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pool.jsonl", b"", r"no questions in it; write one JSON object per line"),
        ("pool.jsonl", b"\n \n", r"no questions in it"),
        ("pool.csv", b"question,answer\n", r"no questions in it"),
        ("pool.json", b"[]", r"no questions in it"),
        (
            "pool.json",
            b'{\n"a": 1}',
            r"pool\.json: a JSON object without an array of objects",
        ),
        ("pool.json", b'[\n{"question": "?"},\n3]', r"pool\.json:3: expected a JSON object, found a number"),
        ("pool.json", b'[\n{"question": "?"},\n', r"pool\.json:3: not JSON"),
        ("pool.json", b'[\n{"question":\n "caf\xe9"}]', r"pool\.json:3: not UTF-8 \(byte 0xe9\)"),
        ("pool.jsonl", GOOD.encode() + b'{"question": "caf\xe9"}', r"pool\.jsonl:2: not UTF-8 \(byte 0xe9\); save the"),
        ("pool.jsonl", GOOD.encode("utf-16"), r"pool\.jsonl: UTF-16, not UTF-8"),
        ("pool.csv", b"question,answer\n?,1,2\n", r"pool\.csv:2: 3 fields where the header has 2"),
        ("pool.csv", b"question,question\n?,1\n", r"pool\.csv:1: a column name occurs twice"),
        ("pool.csv", b'question\n"?\n', r"pool\.csv:2: not valid CSV"),
        (
            "pool.csv",
            b'question\n"' + b"why?\n" * 300_000,
            r"pool\.csv:200002: a field of over 1,000,000 characters; shorten it, or close the quotes",
        ),
        ("pool.csv", b'question,choices\n?,"[""a"", "\n', r"pool\.csv:2: field 'choices': not a JSON list"),
        ("pool.xml", b"<r><p><question>?</question></p>", r"pool\.xml: not XML \(no element found: line 1"),
        ("pool.xml", b"<r></r>", r"no questions in it"),
        ("pool.xml", b"<r><p><question>?</question><question>!</question></p></r>", r"pool\.xml: p 1: two values of"),
        ("pool.xml", b'<!DOCTYPE r [<!ENTITY a "b">]><r><p><question>&a;</question></p></r>', r"with a document type"),
        (
            "pool.txt",
            GOOD.encode(),
            r"unrecognized file extension '\.txt'; name the format, for example --format jsonl",
        ),
    ],
)
def test_a_bad_file_is_named_with_its_remedy(tmp_path, name, content, message):
    with pytest.raises(PoolError, match=message) as caught:
        list(read_pool(write(tmp_path / name, content)))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_xml_rows_may_have_attributes_alone(tmp_path):
    def read(inner):
        path = write(tmp_path / "pool.xml", f"<set>{inner}</set>")
        return [(question.text, question.answer) for question in read_pool(path)]

    flat = '<Problem ID="1" Question="One?" Answer="1"/>'
    full = '<Problem ID="2"><Question>Two?</Question><Answer unit="m">2</Answer></Problem>'
    one, two = ("One?", "1"), ("Two?", "2")
    assert read(flat + full) == [one, two]
    assert read(full + flat) == [two, one]
    assert read(f'<Source url="x"/><part>{full}</part><part>{flat}</part>') == [two, one]
    assert read(flat) == [one]
    assert read(flat + flat.replace('ID="1"', 'ID="3"')) == [one, one]
    assert read('<Problem Question="Two?" Answer="2"><Formula type="x"/></Problem>') == [two]
    with pytest.raises(PoolError, match=r"pool\.xml: Problem 2: field 'question': missing; the row has no fields"):
        read(full.replace(' ID="2"', "") + "<Problem/>")
    with pytest.raises(PoolError, match=r"pool\.xml: Problem 5: text without a name; write it as an attribute"):
        read(full + '<Problem ID="5" Answer="5">Five?</Problem>')


PEM = b"-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0IHRvIGtlZXA=\n-----END OPENSSH PRIVATE KEY-----\n"
NOT_TEXT = {
    "private key": (PEM, "holds a key or a certificate"),
    "key after other lines": (b"Bag Attributes\n    friendlyName: me\n" + PEM, "holds a key or a certificate"),
    "PuTTY key": (b"PuTTY-User-Key-File-3: ssh-ed25519\n", "a private key"),
    "gzip": (b"\x1f\x8b\x08\x00rest", "a gzip archive; unpack it first"),
    "Excel": (b"PK\x03\x04rest", "a zip archive or an Excel workbook; unpack it, or save the sheet as CSV"),
    "parquet": (b"PAR1rest", "a parquet file; name its format with --format parquet"),
    "SQLite": (b"SQLite format 3\0rest", "an SQLite database"),
    "PDF": (b"%PDF-1.7\n", "a PDF"),
    "NUL bytes": (b"\0\1\2 question\n", "a NUL byte: the file is binary or damaged"),
    "other bytes": (b"\x80\x81 question\n", "not UTF-8"),
}


@pytest.mark.parametrize("name", NOT_TEXT)
@pytest.mark.parametrize("format", ["jsonl", "json", "csv", "tsv"])
def test_what_is_no_pool_is_refused_without_showing_it(tmp_path, name, format):
    content, message = NOT_TEXT[name]
    fields = Fields((PEM.decode().split("\n")[0],)) if "key" in name else Fields()
    with pytest.raises(PoolError, match=message) as caught:
        list(read_pool(write(tmp_path / "pool", content), format, fields=fields))
    assert "\n" not in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(PoolError, match=r"none\.jsonl: no such file"):
        read_pool(tmp_path / "none.jsonl")
    with pytest.raises(PoolError, match="not a file; name a file, or a dataset folder"):
        read_pool(tmp_path, "jsonl")
    with pytest.raises(PoolError, match="not a path"):
        read_pool("x" * 5000)
    with pytest.raises(PoolError, match="unknown format 'yaml'; known: auto, jsonl, "):
        read_pool(tmp_path / "none.jsonl", "yaml")
    with pytest.raises(PoolError, match=r"pool\.path is not set"):
        load_pool(PoolConfig())
    assert read_pool(write(tmp_path / "pool.txt", GOOD), "jsonl") is not None
    assert FORMATS[0] == "auto"


def test_the_first_row_is_checked_at_once_and_the_others_when_they_come(tmp_path):
    path = write(tmp_path / "pool.jsonl", GOOD + "no JSON\n")
    questions = read_pool(path)
    assert next(questions).id == "a"
    with pytest.raises(PoolError, match=":2: not JSON"):
        next(questions)
    write(path, "no JSON\n")
    with pytest.raises(PoolError, match=":1: not JSON"):
        read_pool(path)


def read_or_refuse(path, format="auto"):
    """The questions and "", or none and what the PoolError says; any other error is the test's failure."""
    try:
        return list(read_pool(path, format)), ""
    except PoolError as error:
        return [], str(error)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), name=st.sampled_from(["p.jsonl", "p.json", "p.csv", "p.tsv", "p.xml"]))
def test_no_file_makes_the_reader_fail_otherwise(tmp_path, content, name):
    questions, message = read_or_refuse(write(tmp_path / name, content))
    assert bool(questions) != (name in message)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
row_keys = st.sampled_from(
    ["id", "qid", "question", "answer", "choices", "explanation", "facts", "options", "correct", "Question", "Numbers",
     "Equation", "Answer", "answerKey", "input", "target_scores", "examples", "skill", "passage", "label", "Body",
     "context", "answers", "premise", "hypothesis", "A", "B", "messages", "prompt", "completion", "instruction",
     "output", "problem", "solution", "target", "subject", "data"]
)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.dictionaries(row_keys, json_values, max_size=8), min_size=1, max_size=3),
    format=st.sampled_from(["auto", "jsonl", *PUBLISHED]),
)
def test_no_row_makes_the_reader_fail_otherwise(tmp_path, rows, format):
    path = write(tmp_path / "pool.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    questions, message = read_or_refuse(path, format)
    assert bool(questions) != ("pool.jsonl" in message)
    assert len(questions) == len({question.id for question in questions})
