"""The options that say how a pool is read: the same for distill, score and eval."""

import click
import pytest

from edgeelad.cli.commands import cli
from edgeelad.cli.distill import DistillOptions, plan_distill
from edgeelad.cli.shared import PoolOptions
from edgeelad.config import load_config
from edgeelad.config_toml import dump_toml
from edgeelad.errors import UsageError

READING = PoolOptions(
    kind="number", question_template="📚 {passage}\n\nQ: {question}", answer_field="right", explanation_field="why"
)


def test_the_commands_that_read_pools_take_the_same_options():
    def options(name):
        command = cli.get_command(click.Context(cli), name)
        wanted = PoolOptions.__dataclass_fields__
        return {param.name: (param.opts, param.help) for param in command.params if param.name in wanted}

    assert len(options("distill")) == len(PoolOptions.__dataclass_fields__)
    assert options("distill") == options("score") == options("eval")


@pytest.mark.parametrize("has_file", [False, True])
def test_a_run_reads_its_pool_as_told(tmp_path, has_file):
    file = tmp_path / "run.toml"
    file.write_text('[student]\nmodel = "x"\n[pool]\nquestion_fields = ["a"]\n', encoding="utf-8")
    target = {"target": file} if has_file else {"student": "x"}
    fields = PoolOptions(question_fields=("passage", "question"))
    plan = plan_distill(DistillOptions(**target, pool="p.jsonl", out=tmp_path / "run", reading=fields))
    assert plan.config.pool.question_fields == ("passage", "question")
    file.write_text('[student]\nmodel = "x"\n', encoding="utf-8")
    plan = plan_distill(DistillOptions(**target, pool="p.jsonl", out=tmp_path / "run", reading=READING))
    assert plan.config.pool.question_template == READING.question_template
    assert plan.config.pool == READING.config("p.jsonl")
    file.write_text(dump_toml(plan.config), encoding="utf-8")
    assert load_config(file).pool == plan.config.pool


def test_a_run_that_is_resumed_reads_its_pool_as_before(tmp_path):
    with pytest.raises(UsageError, match="--question-field cannot be changed on --resume"):
        plan_distill(DistillOptions(target=tmp_path, resume=True, reading=PoolOptions(question_fields=("a",))))
    with pytest.raises(UsageError, match="name the questions with --pool"):
        plan_distill(DistillOptions(reading=PoolOptions(kind="number")))
