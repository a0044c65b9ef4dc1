"""What each question costs in each way, and which way is chosen."""

from dataclasses import replace

import pytest
from fixtures.fake_teacher import FakeTeacher, make_tree
from fixtures.planted import make_questions, student_of
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeelad.config import TeacherConfig
from edgeelad.quickstart.server import MODEL, TeacherServer
from edgeelad.records import Annotation, Question, TeacherCall, TeacherUsage, TeachingPlan
from edgeelad.run.folder import RunFolder
from edgeelad.run.teaching import TeachingTotals, WayTotals, teaching_totals
from edgeelad.teacher import open_teacher
from edgeelad.teacher.plan.costs import CallCosts, guess
from edgeelad.teacher.plan.plan import FIRST_BLOCK, Planned, Planner
from edgeelad.teacher.plan.risk import RiskScale, risk_of_tree
from edgeelad.teacher.protocol import Abilities, AnswerReply, ChainReply, FirstErrorReply
from edgeelad.teacher.revision.annotate import annotate

PRICES = {"usd_per_million_prompt": 1.0, "usd_per_million_completion": 4.0}
CONFIG = TeacherConfig(**PRICES)
BARE = Question("q", "Ann has 3 pens and 4 more, Ben twice as many. How many has Ben?")
KNOWN = replace(BARE, answer="14")
GOOD = ("3 + 4 = 7", "7 * 2 = 14")
LONG = tuple(f"In step {number} we add up and get {number} + {number} = {2 * number}." for number in range(10))


def sure(question, steps=GOOD, answer="14"):
    """A student whose branches all reach its answer."""
    text = "\n".join((*steps, f"The answer is {answer}"))
    return make_tree(steps, answer, [[(text, answer, -0.1)] * 3] * len(steps), question=question)


def unsure(question, steps=GOOD, answer="16"):
    """A student whose branches all reach other answers, and one its own."""
    text = "\n".join((*steps, f"The answer is {answer}"))
    groups = [[("x", str(20 + index), -1.0) for index in range(3)] for _ in steps]
    groups[0][0] = (text, answer, -0.1)
    return make_tree(steps, answer, groups, question=question)


# --- costs


def test_a_call_is_guessed_from_what_would_be_sent_and_how_long_the_steps_are():
    short, long = guess("rationale", BARE, GOOD, ""), guess("rationale", BARE, LONG, "")
    assert short.prompt_tokens == long.prompt_tokens
    assert long.completion_tokens > 10 * short.completion_tokens / 2
    assert guess("check", BARE, LONG, "").prompt_tokens > guess("check", BARE, GOOD, "").prompt_tokens
    assert guess("answer", BARE, LONG, "").completion_tokens < long.completion_tokens
    assert guess("rationale", BARE, GOOD, "as in:\n3 + 4 = 7").prompt_tokens > short.prompt_tokens


def test_money_is_tokens_times_prices_and_follows_the_discount():
    costs = CallCosts(CONFIG)
    expected = guess("answer", BARE, GOOD, "")
    assert costs.unit == "usd"
    assert costs.expect("answer", BARE, GOOD) == pytest.approx(
        (expected.prompt_tokens + 4 * expected.completion_tokens) / 1e6
    )
    half = CallCosts(TeacherConfig(batch=True, batch_discount=0.5, **PRICES))
    assert half.expect("answer", BARE, GOOD) == pytest.approx(costs.expect("answer", BARE, GOOD) / 2)
    unpriced = CallCosts(TeacherConfig())
    assert unpriced.unit == "tokens"
    assert unpriced.expect("answer", BARE, GOOD) == pytest.approx(1e6 * costs.expect("answer", BARE, GOOD))


def test_hidden_reasoning_is_learned_from_any_call():
    costs = CallCosts(CONFIG)
    before = costs.expect("rationale", BARE, GOOD)
    expected = guess("answer", BARE, GOOD, "")
    for _ in range(20):
        billed = TeacherUsage(1, expected.prompt_tokens, round(expected.completion_tokens) + 300, None)
        costs.note(BARE, GOOD, TeacherCall("answer", billed))
    assert costs.expect("rationale", BARE, GOOD) - before == pytest.approx(300 * 4 / 1e6, rel=0.05)


def test_prompts_and_money_are_corrected_in_proportion():
    costs, expected = CallCosts(CONFIG), guess("rationale", BARE, GOOD, "")
    listed = costs.expect("rationale", BARE, GOOD)
    for _ in range(200):  # twice the tokens in the prompt, and cached ones at half the price
        usage = TeacherUsage(1, 2 * expected.prompt_tokens, round(expected.completion_tokens))
        paid = (usage.prompt_tokens + 4 * usage.completion_tokens) / 2e6
        costs.note(BARE, GOOD, TeacherCall("rationale", replace(usage, cost_usd=paid)))
    assert costs.expect("rationale", BARE, GOOD) == pytest.approx((listed + expected.prompt_tokens / 1e6) / 2, rel=0.05)


def test_a_teacher_that_counts_no_tokens_teaches_nothing_about_costs():
    costs = CallCosts(CONFIG)
    before = costs.expect("answer", BARE, GOOD)
    costs.note(BARE, GOOD, TeacherCall("answer", TeacherUsage(1)))
    assert costs.expect("answer", BARE, GOOD) == before


# --- risk


def test_the_risk_is_the_share_of_other_answers():
    assert risk_of_tree(sure(BARE)) < 0.1
    assert risk_of_tree(unsure(BARE)) > 0.7
    assert risk_of_tree(make_tree(GOOD, None, question=BARE)) > 0.99
    assert risk_of_tree(make_tree(GOOD, "14", question=BARE)) == 0.5


def test_the_risk_is_corrected_by_outcomes():
    scale = RiskScale()
    assert scale.apply(0.3) == pytest.approx(0.3)
    for _ in range(50):
        scale.note(0.3, True)
    assert scale.apply(0.3) > 0.85
    assert scale.apply(0.05) < scale.apply(0.3) < scale.apply(0.9)


@pytest.mark.parametrize(("risk", "num_wrong", "num"), [(0.01, 10, 50), (0.011, 18, 32), (0.989, 17, 32)])
def test_a_risk_that_was_far_off_comes_near_what_was_seen(risk, num_wrong, num):
    scale = RiskScale()
    for number in range(num):
        scale.note(risk, number < num_wrong)
    assert scale.apply(risk) == pytest.approx(num_wrong / num, abs=0.03)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=40), st.floats(0, 1), st.floats(0, 1))
def test_corrected_risks_are_probabilities_in_the_same_order(seen, first, second):
    scale = RiskScale()
    for risk, is_wrong in seen:
        scale.note(risk, is_wrong)
    low, high = sorted((first, second))
    assert 0.0 <= scale.apply(low) <= scale.apply(high) <= 1.0


# --- ways


def test_an_own_explanation_with_the_pools_answer_costs_nothing():
    plan = Planner(CONFIG, Abilities()).plan(KNOWN, sure(KNOWN))
    assert (plan.way, plan.risk, plan.expected["own"]) == ("own", 0.0, 0.0)
    assert plan.expected["rationale"] > 0


def test_one_that_the_branches_do_not_support_is_not_taken_for_granted():
    tree = make_tree(GOOD, "14", [[("x", "16", -1.0)] * 3, [("y", "15", -1.0)] * 3], question=KNOWN)
    assert Planner(CONFIG, Abilities()).plan(KNOWN, tree).way != "own"


def test_the_risk_decides_between_an_answer_and_an_explanation():
    planner = Planner(CONFIG, Abilities(checks=False))
    assert planner.plan(BARE, sure(BARE, LONG, "18"), 0.02).way == "answer"
    assert planner.plan(BARE, sure(BARE, LONG, "18"), 0.95).way == "rationale"
    ways = [planner.plan(BARE, sure(BARE, LONG, "18"), risk / 50).way for risk in range(51)]
    assert ways == sorted(ways), "an answer up to some risk, an explanation from there on"


def test_the_price_of_tokens_decides_between_a_correction_and_an_explanation():
    wrong = unsure(KNOWN, LONG, "99")
    dear = TeacherConfig(usd_per_million_prompt=0.1, usd_per_million_completion=10.0)
    assert Planner(dear, Abilities()).plan(KNOWN, wrong).way == "correct"
    cheap = TeacherConfig(usd_per_million_prompt=1.0, usd_per_million_completion=1.0)
    assert Planner(cheap, Abilities()).plan(KNOWN, wrong).way == "rationale"
    # short steps are explained for less than they are corrected
    assert Planner(CONFIG, Abilities()).plan(KNOWN, unsure(KNOWN)).way == "rationale"


def test_corrections_that_fail_are_given_up():
    dear = TeacherConfig(usd_per_million_prompt=0.1, usd_per_million_completion=10.0)
    planner, wrong = Planner(dear, Abilities()), unsure(KNOWN, LONG, "99")
    calls = tuple(TeacherCall(prompt, TeacherUsage(1, 200, 40, 0.0004)) for prompt in ("find_first_error", "rationale"))
    failed = Annotation("q", "rationale", "L5", GOOD, "14", student_steps=LONG, calls=calls)
    for _ in range(40):
        planner.note(KNOWN, wrong, failed, None)
    assert planner.plan(KNOWN, wrong).way == "rationale"


def test_ways_that_a_teacher_cannot_go_are_not_considered():
    plan = Planner(CONFIG, Abilities(False, False, False, False)).plan(BARE, unsure(BARE))
    assert set(plan.expected) <= {"answer", "rationale"}
    assert set(Planner(CONFIG, Abilities()).plan(BARE, None).expected) == {"rationale"}
    assert set(Planner(CONFIG, Abilities()).plan(BARE, make_tree((), None, question=BARE)).expected) == {"rationale"}


# --- the whole


def run_auto(questions, trees, truth, url, path, record=lambda plans: None, recorded=None):
    config = TeacherConfig(url=url, model=MODEL, api_key_env="", **PRICES)
    planned = Planned(Planner(config, Abilities()), recorded=recorded or {}, record=record)
    with open_teacher(config, path, {}) as teacher:
        made = list(annotate(questions, trees, teacher, student_of(truth), config, planned))
        return made, teacher.usage()


@pytest.mark.parametrize("has_answers", [True, False])
@pytest.mark.parametrize("reasoning", [0, 200])
def test_auto_costs_no_more_than_the_cheaper_of_the_others(tmp_path, has_answers, reasoning):
    questions, truth, trees = make_questions(60, has_answers=has_answers)
    cost = {}
    with TeacherServer(reasoning_tokens=reasoning) as server:
        for mode in ("auto", "revise", "rationale"):
            config = TeacherConfig(url=server.url, model=MODEL, api_key_env="", mode=mode, **PRICES)
            with open_teacher(config, tmp_path / mode, {}) as teacher:
                made = list(annotate(questions, trees, teacher, student_of(truth), config))
                cost[mode] = teacher.usage().cost_usd
            assert all(item.answer == truth[item.question_id][1] for item in made)
    assert cost["auto"] <= 1.05 * min(cost["revise"], cost["rationale"])


def test_plans_are_recorded_before_they_are_paid_for_and_stand(tmp_path):
    questions, truth, trees = make_questions(30)
    recorded, requests = [], []
    with TeacherServer() as server:

        def record(plans):
            recorded.append(list(plans))
            requests.append(server.billed.requests)

        made, _ = run_auto(questions, trees, truth, server.url, tmp_path / "a", record)
        plans = [plan for block in recorded for plan in block]
        assert [plan.question_id for plan in plans] == [question.id for question in questions]
        assert [len(block) for block in recorded] == [FIRST_BLOCK, 4, 8, 14]
        assert requests[0] == 0
        assert requests == [sum(len(item.calls) for item in made[:start]) for start in (0, 4, 8, 16)]
        # the same again, from the ledger, and in a ledger of its own
        for path in ("a", "b"):
            again = []
            assert run_auto(questions, trees, truth, server.url, tmp_path / path, again.extend)[0] == made
            assert again == plans
        # what was recorded stands, whatever would be chosen now
        others = {plan.question_id: replace(plan, way="check") for plan in plans}
        made, _ = run_auto(questions, trees, truth, server.url, tmp_path / "c", recorded=others)
        assert all(item.calls[0].prompt == "check" for item in made)


@pytest.mark.parametrize("is_replay", [False, True])
def test_a_teacher_that_buys_in_batches_gets_all_plans_at_once(is_replay):
    questions, truth, trees = make_questions(30)
    teacher = FakeTeacher(
        answer=lambda question, sample: AnswerReply(truth[question.id][1]),
        check=lambda question, steps, answer: FirstErrorReply(None, None, truth[question.id][1]),
        rationale=lambda question, reference, sample: ChainReply(*truth[question.id]),
    )
    if not is_replay:
        teacher.fetch = lambda pending: None
    recorded, config = [], CONFIG.model_copy(update={"batch": True})
    planned = Planned(Planner(config, Abilities()), record=recorded.append)
    made = list(annotate(questions, trees, teacher, student_of(truth), config, planned))
    assert len(made) == 30
    assert [len(block) for block in recorded] == [30]


def test_an_answer_that_the_student_does_not_reach_leads_to_an_explanation_that_is_not_told_it():
    plan = TeachingPlan("q", "answer", 1, 0.1, 2, {"answer": 1.0, "rationale": 2.0}, "usd")
    teacher = FakeTeacher(answer=[AnswerReply("14")] * 2, rationale=[ChainReply(GOOD, "14")])
    planned = {"recorded": {"q": plan}}
    (right,) = annotate([BARE], {"q": sure(BARE)}, teacher, no_student, CONFIG, planner_with(planned))
    assert (right.rung, right.steps, teacher.methods) == ("L1", GOOD, ["answer"])
    (wrong,) = annotate([BARE], {"q": sure(BARE, GOOD, "16")}, teacher, no_student, CONFIG, planner_with(planned))
    assert (wrong.rung, wrong.answer) == ("L5", "14")
    assert teacher.calls[-1] == ("rationale", "q", None, 0)


def planner_with(settings):
    return Planned(Planner(CONFIG, Abilities()), **settings)


def no_student(items):
    raise AssertionError("the student is not asked")


def test_what_was_saved_is_measured_against_what_explanations_really_cost():
    explained = WayTotals("rationale", 4, 4, 8.0, 16.0, 8.0)
    answered = WayTotals("answer", 6, 6, 3.0, 4.0, 12.0)
    totals = TeachingTotals((answered, explained), True)
    assert (totals.paid, totals.explanations) == (20.0, 40.0)
    assert totals.sentence == (
        "The teacher settled 6 by an answer, 4 by an explanation: 50% less money than explanations of all "
        "($20.0000 instead of about $40.0000)."
    )
    assert "the same money as explanations of all" in TeachingTotals((explained,), False).sentence
    free = TeachingTotals((WayTotals("rationale", 4, 4, 8.0, 0.0, 8.0),), False)
    assert free.sentence == "The teacher settled 4 by an explanation, at no cost."
    uncounted = WayTotals("answer", 6, 6, 3.0, 0.0, 12.0, TeacherUsage(requests=6))
    assert TeachingTotals((uncounted,), False).sentence == (
        "The teacher settled 6 by an answer; what it cost is unknown, for it counts no tokens."
    )


def test_costs_in_dollars_and_in_tokens_are_not_added_up(tmp_path):
    folder = RunFolder(tmp_path)
    units = (("tokens", 300.0, 400.0), ("usd", 0.0003, 0.0004))
    for number, (unit, answer, rationale) in enumerate(units, start=1):
        ids = [f"{unit}-{i}" for i in range(3)]
        expected = {"answer": answer, "rationale": rationale}
        here = folder.round(number)
        here.plan.write(TeachingPlan(id_, "answer", 0, 0.1, 2, expected, unit) for id_ in ids)
        usage = TeacherUsage(1, 200, 25, 0.0003)
        here.annotations.write(Annotation(id_, "accepted", "L1", ("a",), "1", usage=usage) for id_ in ids)
    assert teaching_totals(folder).sentence == (
        "The teacher settled 3 by an answer: 25% less money than explanations of all ($0.0009 instead of about "
        "$0.0012, without 3 questions that were planned before there were prices)."
    )


@pytest.mark.parametrize(("walk", "prompt"), [("single", "find_first_error"), ("per_step", "judge_step")])
def test_corrections_that_never_lead_to_an_explanation_are_given_up(walk, prompt):
    config = TeacherConfig(walk=walk, usd_per_million_prompt=0.1, usd_per_million_completion=10)
    planner, tree = Planner(config, Abilities()), unsure(KNOWN, LONG, "99")
    assert planner.plan(KNOWN, tree).way == "correct"
    calls = (TeacherCall(prompt, TeacherUsage(1, 150, 60)), TeacherCall("rationale", TeacherUsage(1, 150, 220)))
    for _ in range(50):
        planner.note(KNOWN, tree, Annotation("q", "rationale", "L5", GOOD, "14", student_steps=LONG, calls=calls), None)
    assert planner.plan(KNOWN, tree).way == "rationale"


def test_a_teacher_that_judges_no_steps_is_not_planned_to_walk_over_them():
    config = CONFIG.model_copy(update={"walk": "per_step"})
    assert Planner(config, Abilities(judges_steps=False)).plan(KNOWN, unsure(KNOWN, LONG, "99")).way == "rationale"


def test_a_teacher_at_no_price_is_planned_by_its_tokens():
    planner = Planner(TeacherConfig(usd_per_million_prompt=0, usd_per_million_completion=0), Abilities(checks=False))
    assert planner.costs.unit == "tokens"
    assert planner.plan(BARE, sure(BARE, LONG, "18"), 0.02).way == "answer"
    assert planner.plan(BARE, sure(BARE, LONG, "18"), 0.95).way == "rationale"
