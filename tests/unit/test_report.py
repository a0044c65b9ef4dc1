import html.parser
import json
import re
import shutil
from array import array
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.report_run import make_run

from edgeelad.errors import RunError
from edgeelad.records import Annotation, Correction, TeacherUsage
from edgeelad.report import write_report
from edgeelad.report.questions import make_card
from edgeelad.report.read import CheckedRisk, RoundQuestions, read_run
from edgeelad.report.risk import risk_section
from edgeelad.run.folder import RunFolder
from edgeelad.run.records import SelectedRow
from edgeelad.run.scores import ScoreRow
from edgeelad.run.teacher_check import KeptCheck, keep_check
from edgeelad.teacher.check.measure import Share, TeacherCheck
from edgeelad.uncertainty.risk import COLD_START, FEATURES, fit

VOID = {"meta", "br"}


class Outline(html.parser.HTMLParser):
    """Checks that tags nest, and keeps tags, attributes and text."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend(attrs)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def outline(path):
    parser = Outline()
    parser.feed(path.read_text(encoding="utf-8"))
    assert parser.open == []
    return parser


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "a")


@pytest.fixture
def own_run(run_folder, tmp_path):
    return Path(shutil.copytree(run_folder, tmp_path / "b"))


def rewrite_jsonl(path, change):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(change(row)) + "\n" for row in rows))


def test_page_is_whole_and_needs_nothing_else(run_folder):
    path = write_report(run_folder)
    page = outline(path)
    assert path == run_folder / "report.html"
    assert {"script", "link", "iframe", "img", "object"}.isdisjoint(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "srcset")]
    text = path.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|//[a-z0-9.-]+\.[a-z]{2,}", text)


def test_headline_and_figures(run_folder):
    text = " ".join("".join(outline(write_report(run_folder)).text).split())
    assert "42.0% → 87.4%" in text
    assert "+45.4 points" in text
    assert "165 of 2,000 questions annotated in 3 rounds" in text
    assert "agreement with the teacher was certified" in text
    assert "Certified at 95% confidence" in text
    assert "20 of 20" in text
    assert "same answer as fp32 on 99.2%" in text
    assert "6 min 6 s" in text  # 212.4 + 96.0 + 31.5 + 12.2 + 9.9 + 4.0 seconds


def test_questions_that_are_not_shown_are_counted(run_folder):
    text = " ".join("".join(outline(write_report(run_folder)).text).split())
    # 60 selected a round, 5 of them set aside, 40 shown
    assert text.count("showing the 40 most uncertain that were verified, 15 more are not shown") == 3
    assert text.count("5 × the teacher's answers do not agree: 3 of 3 differ") == 3
    assert outline(run_folder / "report.html").tags.count("details") == 3 * (40 + 5) + 1


def test_rounds_that_were_all_shown_hide_nothing(tmp_path):
    text = "".join(outline(write_report(make_run(tmp_path / "small", batch=20, pool=50, num_rounds=1))).text)
    assert "most uncertain that were verified" not in text


def test_what_the_pool_and_the_teacher_wrote_is_escaped(own_run):
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)> {{ 7*7 }}"
    rewrite_jsonl(own_run / "rounds/01/selected.jsonl", lambda row: {**row, "question": evil})
    rewrite_jsonl(own_run / "rounds/01/annotations.jsonl", lambda row: {**row, "answer": evil, "reason": evil})
    page = outline(write_report(own_run))
    assert {"script", "img"}.isdisjoint(page.tags)
    assert evil in "".join(page.text)


def test_secrets_of_the_configuration_are_not_shown(run_folder):
    text = write_report(run_folder).read_text(encoding="utf-8")
    assert "secret" not in text
    assert "extra_headers" in text


def checked(url, model):
    shares = (Share(25, 32), Share(29, 32), Share(8, 8), Share(0, 0), Share(39, 40), Share(1, 80))
    usage = TeacherUsage(80, 15_000, 2_400, 0.0098)
    return KeptCheck(url, model, "rows <1>.jsonl", TeacherCheck(40, *shares, usage))


def test_the_teacher_check_is_shown(own_run):
    assert "Teacher check" not in "".join(outline(write_report(own_run)).text)
    keep_check(checked("https://host/v1", "big-teacher"), own_run)
    (own_run / "config.toml").write_text('[teacher]\nurl = "https://host/v1"\nmodel = "big-teacher"\n')
    text = " ".join("".join(outline(write_report(own_run)).text).split())
    assert "big-teacher was asked about 40 explanations whose first error is known (rows <1>.jsonl)" in text
    assert "80 requests and 17,400 tokens, $0.0098; these are not counted among the run's" in text
    assert "finds the first error 78% 25 of 32" in text
    assert "its correction leads to the right answer –" in text
    assert "another teacher than the run's" not in text
    low, high = Share(25, 32).interval
    bar = f"left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"
    assert bar in (own_run / "report.html").read_text(encoding="utf-8")


def test_the_check_of_another_teacher_is_said_to_be_one(own_run):
    keep_check(checked("https://host/v1", "another"), own_run)
    text = " ".join("".join(outline(write_report(own_run)).text).split())
    assert "The check is of another teacher than the run's: another at https://host/v1." in text


@pytest.mark.parametrize("damage", ["[]", "{}", '{"found": {"hits": "3", "of": 2}}', '{"sha256": null}'])
def test_a_damaged_teacher_check_is_named(own_run, damage):
    keep_check(checked("https://host/v1", "m"), own_run)
    path = own_run / "teacher_check.json"
    row = json.loads(damage)
    path.write_text(json.dumps({**json.loads(path.read_text()), **row} if row else row))
    with pytest.raises(RunError, match=r"teacher_check\.json: damaged \("):
        write_report(own_run)


@pytest.mark.parametrize(
    "change",
    [
        {"found": {"hits": 32, "of": 32, "low": 1.0, "high": 1.0}},
        {"found": {"hits": 25, "of": 32, "low": 0.1, "high": float("nan")}},
        {"data": "other rows.jsonl"},
        {"note": "\ud800"},
        {"sha256": "0" * 64},
    ],
)
def test_a_changed_teacher_check_is_not_shown(own_run, change):
    path = keep_check(checked("https://host/v1", "m"), own_run)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RunError, match=r"teacher_check\.json: (changed since it was written|damaged \()"):
        write_report(own_run)


def test_a_check_and_a_configuration_saved_with_a_byte_order_mark(own_run):
    check = keep_check(checked("https://host/v1", "m"), own_run)
    page = write_report(own_run).read_bytes()
    for path in (check, own_run / "config.toml"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert write_report(own_run).read_bytes() == page


def test_run_under_way_is_reported_from_its_metrics(own_run):
    (own_run / "summary.json").unlink()
    shutil.rmtree(own_run / "rounds")
    text = " ".join("".join(outline(write_report(own_run)).text).split())
    assert "This run has not ended" in text
    assert "42.0% → 87.4%" in text
    assert "at 95% confidence" in text


def test_summary_alone_is_enough(own_run):
    (own_run / "metrics.jsonl").unlink()
    (own_run / "config.toml").unlink()
    shutil.rmtree(own_run / "rounds")
    assert "87.4%" in "".join(outline(write_report(own_run)).text)


def test_unlabeled_pool_has_no_accuracy_charts(own_run):
    none = {"accuracy": None, "accuracy_strict": None, "low": None, "high": None, "num_test": 0, "by_skill": {}}
    rewrite_jsonl(own_run / "metrics.jsonl", lambda row: {**row, **none, "package_accuracy": None})
    summary = json.loads((own_run / "summary.json").read_text())
    summary |= {"base_accuracy": None, "accuracy": None, "package_accuracy": None, "certificate": None}
    (own_run / "summary.json").write_text(json.dumps(summary))
    text = " ".join("".join(outline(write_report(own_run)).text).split())
    assert "so no accuracy is known" in text
    assert "Accuracy against" not in text
    assert "so nothing is claimed about it" in text


def test_selected_but_not_yet_annotated(own_run):
    (own_run / "rounds/03/annotations.jsonl").unlink()
    (own_run / "rounds/02/scores.jsonl").unlink()
    text = " ".join("".join(outline(write_report(own_run)).text).split())
    assert "No question of this round has been verified." in text


def test_loss_curves_and_warnings_are_shown(own_run):
    training = own_run / "rounds/01/training.json"
    training.write_text(json.dumps({**json.loads(training.read_text()), "warning": "the student overfits"}))
    rewrite_jsonl(own_run / "metrics.jsonl", lambda row: {**row, "warning": "it <b>" if row["round"] == 1 else None})
    page = outline(write_report(own_run))
    text = " ".join("".join(page.text).split())
    assert "Round 1: 55 examples, 200 steps" in text
    assert "58.2 passes over the examples at a learning rate of 2.0e-04; final loss 0.400, held out 0.600." in text
    assert text.index("Round 1: the student overfits.") < text.index("Round 1: it <b>.")
    lines = [value for name, value in page.attributes if name == "class" and value == "line other"]
    assert len(lines) == 3


def test_risk_is_shown_with_its_calibration_and_coefficients(own_run):
    assert "<h2>Risk</h2>" not in write_report(own_run).read_text(encoding="utf-8")  # of an earlier version
    here = RunFolder(own_run).round(1)
    here.risk.write(fit([[0.0] * len(FEATURES)] * 10 + [[1.0] * len(FEATURES)] * 10, [False] * 10 + [True] * 10))
    traces = [[9, -0.2, -0.7, 0.25, 0.81, 4, 0.1]] * 3
    rewrite_jsonl(here.scores.path, lambda row: {**row, "risk": 0.42, "traces": traces})
    page = write_report(own_run).read_text(encoding="utf-8")
    outline(own_run / "report.html")
    assert "<td>20 checked</td><td>drawn at random</td>" in page
    assert "<td>42.0%</td>" in page
    assert "risk 42%" in page
    assert "9 tokens; entropy 0.25 nats on average, 0.81 at most; lowest window of log-probabilities -0.70" in page
    assert "states a false equation" in page


@pytest.mark.parametrize(
    ("num_wrong", "reason", "is_off"), [(5, "explore", False), (50, "explore", True), (50, "score", False)]
)
def test_an_expected_share_outside_the_observed_interval_of_a_fair_sample_is_off(num_wrong, reason, is_off):
    checked = tuple(CheckedRisk(0.1, reason, index < num_wrong) for index in range(60))
    (row,) = risk_section(replace(empty_questions(), risk_model=COLD_START, checked=checked)).calibration
    assert (row.num, row.observed, row.is_off) == (60, num_wrong / 60, is_off)
    assert row.expected == pytest.approx(0.1)


def empty_questions():
    return RoundQuestions(1, 0, (), (), 0, 0, {}, {}, {}, {}, {}, array("d"), ())


def test_not_a_run_folder(tmp_path):
    with pytest.raises(RunError, match="no such run folder"):
        write_report(tmp_path / "missing")
    with pytest.raises(RunError, match="no results to report"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        ("metrics.jsonl", "{", r"metrics\.jsonl:2: damaged"),
        ("metrics.jsonl", "{}", r"metrics\.jsonl:2: damaged \(field round is missing\)"),
        ("metrics.jsonl", "[]", r"metrics\.jsonl:2: damaged \(input should be an object\)"),
        ("rounds/01/scores.jsonl", '{"id": "x", "score": "high"}', r"scores\.jsonl:2: damaged"),
        ("rounds/01/selected.jsonl", '{"id": "x"}', r"selected\.jsonl:2: .*question is missing"),
        ("rounds/01/annotations.jsonl", '{"question_id": "x"}', r"annotations\.jsonl:2: .*status is missing"),
    ],
)
def test_damaged_files_are_named(own_run, file, line, expected):
    lines = (own_run / file).read_text().splitlines()
    (own_run / file).write_text("\n".join([lines[0], line, *lines[2:]]) + "\n")
    with pytest.raises(RunError, match=expected):
        write_report(own_run)


def test_damaged_configuration_is_named(own_run):
    (own_run / "config.toml").write_text("[run\n")
    with pytest.raises(RunError, match=r"config\.toml: damaged"):
        write_report(own_run)


def test_read_run_keeps_the_most_uncertain(run_folder):
    first = read_run(run_folder).rounds[0]
    scores = [question.score for question in first.shown]
    assert len(scores) == 40
    assert scores == sorted(scores, reverse=True)
    assert (first.num_settled, first.num_set_aside, first.num_selected) == (55, 5, 60)
    assert len(first.pool_scores) == 400
    assert set(first.explanations) == {question.id for question in (*first.shown, *first.set_aside)}


QUESTION = SelectedRow("q", "What is 2 + 3, doubled?", (), "score", 0.5, 0.1)


def scored(steps, step_scores, answer, branch_answers):
    return ScoreRow("q", "elad", 0.5, "\n".join(steps), steps, answer, branch_answers, step_scores, -0.3, 0.4, 12)


SCORED = scored(("2 + 3 = 6.", "6 * 2 = 12."), (0.75, 0.0), "12", (("10", "12"), ("12", "12"), ("12", "12")))


def annotation(status, steps, corrections=(), **fields):
    return Annotation(
        "q", status, "L2", steps, "10", student_steps=SCORED.steps, corrections=tuple(corrections), **fields
    )


def test_card_of_a_revised_question():
    fix = Correction(0, "2 + 3 = 6.", "2 + 3 = 5.", "teacher")
    card = make_card(QUESTION, annotation("revised", ("2 + 3 = 5.", "5 * 2 = 10.", "Done."), [fix]), SCORED, 1.0)
    assert [row.origin for row in card.rows] == ["corrected", "student", "student"]
    assert [row.heat for row in card.rows] == [0.75, 0.0, None]
    assert [row.is_dropped for row in card.rows] == [True, True, False]
    assert [part.text for part in card.rows[0].before if part.is_changed] == ["6"]
    assert [part.text for part in card.rows[0].after if part.is_changed] == ["5"]
    assert (card.rows[0].without, card.rows[0].given) == (("10", "12"), ("12", "12"))
    assert (card.rows[1].without, card.rows[1].given) == ((), ())  # all branches agree: nothing to show
    assert card.rows[2].before == ()
    assert not card.is_student_right
    assert card.abandoned == ()


def test_card_shows_who_wrote_the_steps():
    kept_then_teacher = annotation("completed", ("2 + 3 = 6.", "Anew: 10."))
    assert [row.origin for row in make_card(QUESTION, kept_then_teacher, SCORED, 1.0).rows] == ["kept", "teacher"]
    rest_stands = annotation("revised", ("2 + 3 = 5.", "6 * 2 = 12."), [Correction(0, "", "2 + 3 = 5.", "teacher")])
    assert [row.origin for row in make_card(QUESTION, rest_stands, SCORED, 1.0).rows] == ["corrected", "kept"]
    all_kept = annotation("accepted", SCORED.steps)
    assert [row.origin for row in make_card(QUESTION, all_kept, SCORED, 1.0).rows] == ["kept", "kept"]
    given_up = Correction(1, "6 * 2 = 12.", "6 * 2 = 13.", "teacher")
    card = make_card(QUESTION, annotation("rationale", ("5 * 2 = 10.",), [given_up]), SCORED, 1.0)
    assert [row.origin for row in card.rows] == ["teacher", None]
    assert card.abandoned == (given_up,)
    same_by_chance = Correction(0, "2 + 3 = 6.", "5 * 2 = 10.", "teacher")
    card = make_card(QUESTION, annotation("rationale", ("5 * 2 = 10.",), [same_by_chance]), SCORED, 1.0)
    assert [row.origin for row in card.rows] == ["teacher", None]


def test_steps_with_little_in_common_are_not_marked_word_by_word():
    other = Correction(0, "2 + 3 = 6.", "Half of 20 is 10 apples.", "teacher")
    card = make_card(QUESTION, annotation("revised", (other.after,), [other]), SCORED, 1.0)
    assert card.rows[0].origin == "corrected"
    assert not any(part.is_changed for part in (*card.rows[0].before, *card.rows[0].after))


def test_card_does_not_give_scores_to_other_steps():
    other = scored(("Something else.",), (0.9,), "1", ())
    card = make_card(QUESTION, annotation("accepted", SCORED.steps), other, 1.0)
    assert [row.score for row in card.rows] == [None, None]
