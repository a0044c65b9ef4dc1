"""Scores in two passes: the rows of the riskiest questions take the place of those of the first pass."""

from edgeelad.run.scores import ScoreRow
from edgeelad.stages.score import merge_passes


def row(id_: str, strategy: str, score: float, num_tokens: int) -> ScoreRow:
    return ScoreRow(id_, strategy, score, "", ("a step",), "1", (), (score,), -0.1, 0.1, num_tokens, risk=score)


GREEDY = [row("a", "risk", 0.2, 10), row("b", "risk", 0.9, 20), row("c", "risk", 0.8, 30), row("d", "risk", 0.1, 40)]


def test_a_branched_question_was_explained_twice_and_the_others_score_nothing() -> None:
    branched = iter([row("b", "elad", 1.3, 200), row("c", "elad", 0.4, 300)])
    merged = list(merge_passes(GREEDY, branched, "elad"))
    assert [(r.id, r.score, r.num_tokens) for r in merged] == [
        ("a", 0, 10),
        ("b", 1.3, 220),
        ("c", 0.4, 330),
        ("d", 0, 40),
    ]
    assert {r.strategy for r in merged} == {"elad"}
    assert merged[0].risk == 0.2
    assert merged[0].step_scores == ()


def test_a_question_that_the_second_pass_lost_keeps_its_first_row() -> None:
    merged = list(merge_passes(GREEDY, iter([row("c", "elad", 0.4, 300)]), "elad"))
    assert [(r.id, r.score) for r in merged] == [("a", 0), ("b", 0), ("c", 0.4), ("d", 0)]
