import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeelad.text.answers import agree, canonical, extract, infer_kind
from edgeelad.text.explanation import join

KINDS = ("number", "choice", "boolean", "text")
PLACES = ("bank", "library", "department store", "a mall", "new york")

unhurried = settings(deadline=None)  # a shared machine has slow moments


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", "7"),
        ("+7", "7"),
        ("007", "7"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("− 5", "-5"),
        ("–5", "-5"),
        (".5", "0.5"),
        ("-.50", "-0.5"),
        ("18.", "18"),
        ("1,200.0", "1200"),
        ("100,000,000", "100000000"),
        ("1\u202f200", "1200"),
        ("1{,}200", "1200"),
        ("1e6", "1000000"),
        ("1.5E-3", "0.0015"),
        ("1.5 \\times 10^{6}", "1500000"),
        ("$1,200", "1200"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("US$5.50", "5.5"),
        ("Rs. 500", "500"),
        ("€20", "20"),
        ("50%", "50"),
        ("25\\%", "25"),
        ("50 percent", "50"),
        ("5 apples.", "5"),
        ("12 m²", "12"),
        ("5 km/h", "5"),
        ("2.5 million dollars", "2500000"),
        ("1/2", "0.5"),
        ("2/6", "1/3"),
        ("-1/3", "-1/3"),
        ("3 1/2", "3.5"),
        ("-3 1/2", "-3.5"),
        ("3½", "3.5"),
        ("\\frac{7}{8}", "0.875"),
        ("3\\dfrac{3}{4}", "3.75"),
        ("5 cups. She had 8, and 8 - 3 = 5", "5"),
        ("approx. 5", "5"),
        ("#### 18", "18"),
        ("**18**", "18"),
        ("$\\boxed{\\frac{1}{2}}$", "0.5"),
        ("The answer is 18.", "18"),
        ("x = 3 + 2 = 5", "5"),
        ("１２", "12"),
    ],
)
def test_numbers_in_their_many_forms(value, expected):
    assert canonical(value, "number") == expected


@pytest.mark.parametrize(
    "value",
    ["", " ", "five", "5 or 6", "5-6", "12:30", "1/0", "1/2/2020", "10^2", "10²", "1,2", "1.2.3", "1e999999999"],
)
def test_what_is_no_single_number_is_no_answer(value):
    assert canonical(value, "number") is None


def test_numbers_are_exact_at_any_length():
    assert canonical("9" * 20_000, "number") == "9" * 20_000
    assert canonical("0." + "0" * 20_000 + "1", "number") == "0." + "0" * 20_000 + "1"
    assert canonical("1" * 20_000 + "/3", "number") is None  # exact, but nobody's answer
    assert canonical("0.1", "number") != canonical("0.10000000000000000001", "number")
    assert extract("1" * 1_000_000 + " and " + "(" * 1_000_000, "number") == "1" * 1_000_000


PARTS = (
    "So she has 3 apples.", "3 + 4 = 7", "The answer is 5.", "The answer is not 6.", "Wait, the answer is 8.", "1,000",
    r"\boxed{3}", r"and \boxed{4}", "Answer:", "#### 12", "<answer>9</answer>", "yes", "no", "The answer is (B).", "{",
    "If the answer is 5, then", "so x = 3.", "foo bar " * 20, "2/3 cups", "The answer is yes.", "Hmm.", "-3", "x + 2",
)  # fmt: skip


@unhurried
@given(st.lists(st.tuples(st.sampled_from(PARTS), st.sampled_from((" ", "\n", "\n\n"))), max_size=60))
def test_a_long_text_is_read_from_behind_as_a_whole_one_is(parts):
    text = "".join(part + end for part, end in parts)
    with pytest.MonkeyPatch.context() as patch:
        for kind in KINDS:
            whole = extract(text, kind)
            patch.setattr("edgeelad.text.answers.TAIL_CHARS", 400)
            patch.setattr("edgeelad.text.answers.EDGE", 200)
            assert extract(text, kind) == whole
            patch.undo()


@pytest.mark.parametrize("mark", ["=", "-", "=-"])
def test_a_row_of_marks_takes_no_time(mark):
    """The square of a million steps would not end."""
    rows = mark * 200_000
    assert extract(f"{rows} apples: 5", "number") == extract(f"{rows}\nThe answer is 5", "number") == "5"
    assert canonical(rows, "number") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(b)", "B"),
        ("b).", "B"),
        ("B) library", "B"),
        ("(B) library", "B"),
        ("B, because one reads there", "B"),
        ("Option (c)", "C"),
        ("The Library.", "B"),
        ("mall", "D"),
        ("New  York", "E"),
        ("**D**", "D"),
        ("F", None),
        ("river bank", None),
        ("e.g. the mall", None),
        ("", None),
    ],
)
def test_choices_by_label_and_by_text(value, expected):
    assert canonical(value, "choice", PLACES) == expected


def test_a_numeric_choice_is_found_by_its_value():
    assert canonical("$1,000", "choice", ("10 dollars", "1000", "100")) == "B"
    assert canonical("5", "choice", ("5", "5.0")) is None  # two choices fit
    assert canonical("Z", "choice") == "Z"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Yes.", "yes"),
        ("TRUE", "yes"),
        ("no", "no"),
        ("False!", "no"),
        ("**No**", "no"),
        ("Yes, because it rains", "yes"),
        ("no one knows", None),
        ("not true", None),
        ("maybe", None),
    ],
)
def test_booleans(value, expected):
    assert canonical(value, "boolean") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("The  Eiffel Tower.", "eiffel tower"),
        ("“Paris”!", "paris"),
        ("O'Brien", "o'brien"),
        ("version 1.5", "version 1.5"),
        ("-5", "-5"),
        ("Ｆｏｏ", "foo"),
        ("The", "the"),
        ("?!", "?!"),
        ("  ", None),
    ],
)
def test_texts(value, expected):
    assert canonical(value, "text") == expected


def test_the_last_stated_answer_counts():
    text = "2 + 3 = 5\nThe answer is 5\nNo: 3 + 4 = 7\nThe answer is 7 apples."
    assert extract(text, "number", strict=True) == "7"
    assert extract(text, "number") == "7"
    assert extract("#### 4\nAnswer: 9", "number") == "9"
    assert extract("\\boxed{3}, or rather \\boxed{\\frac{3}{4}}.", "number") == "0.75"
    assert extract("The answer is 5\nThe answer is", "number") == "5"  # a restatement that was cut off states nothing


def test_strict_takes_only_the_stated_format():
    for text in ("So the answer is 5.", "#### 5", "Answer: 5", "\\boxed{5}", "2 + 3 = 5", "The answer isn't 5"):
        assert extract(text, "number", strict=True) is None
    assert extract("2 + 3 = 5\n  The answer is: $5.00\r\n", "number", strict=True) == "5"


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("so the final answer is probably 5. Check: 5 - 3 = 2", "number", "5"),
        ("the answer is 3 + 2 = 5 apples, not 6", "number", "5"),
        ("**Answer:**\n\n 12", "number", "12"),
        ("I have 3, you have 4.", "number", "4"),
        ("I have none.", "number", None),
        ("so it is \\boxed{(C)}", "choice", "C"),
        ("The answer is clearly the library", "choice", "B"),
        ("The answer is the choice (D), as above", "choice", "D"),
        ("I like the library", "choice", None),
        ("The final answer is: **Yes**", "boolean", "yes"),
        ("The answer is not true", "boolean", None),
        ("The answer is most likely no, as it rains", "boolean", "no"),
        ("Yes and no.", "boolean", None),
        ("Thus the answer is Paris.", "text", "paris"),
        ("Paris.", "text", None),
        ("", "text", None),
    ],
)
def test_lenient_extraction(text, kind, expected):
    assert extract(text, kind, PLACES if kind == "choice" else ()) == expected


def test_an_answer_not_found_agrees_with_nothing():
    assert agree("5", "5")
    assert not agree("5", "6")
    assert not agree(None, "5")
    assert not agree(None, None)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("5", "number"),
        ("-$1,200.50", "number"),
        ("50%", "number"),
        ("11 apples", "number"),
        ("1/3", "number"),
        ("#### 18", "number"),
        ("Apollo 11", "text"),
        ("7 Samurai", "text"),
        ("True", "boolean"),
        ("No.", "boolean"),
        ("no one", "text"),
        ("B", "text"),
    ],
)
def test_the_kind_that_an_answer_looks_like(value, kind):
    assert infer_kind(value) == kind
    assert infer_kind(value, PLACES) == "choice"


answers_and_kinds = st.tuples(
    st.one_of(
        st.text(),
        st.text("0123456789 ,./-+e%$€^*=()", max_size=12),
        st.text("ABCDEFG() .:,banklibraryTheansweris#\\boxed{}", max_size=20),
        st.sampled_from(
            ["½", "\\frac{1}{2}", "#### yes", "The answer is no", "answer: the answer is (a) library", "ﬁ ﬀ"]
        ),
    ),
    st.sampled_from(KINDS),
)


@pytest.mark.parametrize("value", ["The answer is", "ANSWER IS", "Answer:", "\\boxed{}", ":", "}:\\"])
def test_a_text_without_an_answer_in_it(value):
    assert canonical(value, "text") is None


def test_marks_that_latex_commands_hide_are_removed_as_well():
    assert canonical("}:=\\", "text") == canonical(":=", "text") == "="


@unhurried
@given(answers_and_kinds)
def test_canonical_is_idempotent(value_and_kind):
    value, kind = value_and_kind
    choices = PLACES if kind == "choice" else ()
    once = canonical(value, kind, choices)
    if once is not None:
        assert canonical(once, kind, choices) == once


@unhurried
@given(answers_and_kinds, st.lists(st.text("abc 123+=.", max_size=12), max_size=3))
def test_extract_undoes_join(value_and_kind, steps):
    value, kind = value_and_kind
    choices = PLACES if kind == "choice" else ()
    answer = canonical(value, kind, choices)
    if answer is not None and "\n" not in value:
        text = join(tuple(steps), value)
        assert extract(text, kind, choices, strict=True) == answer
        assert extract(join(tuple(steps), answer), kind, choices) == answer


@unhurried
@given(st.text(), st.sampled_from(KINDS), st.booleans())
def test_extract_never_raises(text, kind, strict):
    assert extract(text, kind, PLACES, strict=strict) == extract(text, kind, PLACES, strict=strict)


@unhurried
@given(st.integers(-(10**30), 10**30), st.integers(1, 10**6))
def test_equal_values_have_equal_forms(top, bottom):
    assert canonical(f"{top}/{bottom}", "number") == canonical(f"{3 * top}/{3 * bottom}", "number")
    assert canonical(f"{top:,}", "number") == str(top)
