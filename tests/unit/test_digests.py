"""A resumed run rests on what the stages left, and on nothing else."""

from pathlib import Path

import pytest

from edgeelad.config import RunConfig, make_config
from edgeelad.errors import ConfigError, RunError
from edgeelad.files import write_text
from edgeelad.run.config_file import check_changes, read_config, write_config
from edgeelad.run.digests import digests_of
from edgeelad.run.folder import RunFolder
from edgeelad.run.records import PoolSplit
from edgeelad.stages.open_run import record_config


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run of three stages: a file, a folder, a file."""
    run = RunFolder(tmp_path / "run")
    first, student, last = paths(run)
    with run.stage(1, "score", first):
        write_text(first, "scores")
    with run.stage(1, "fine-tune", student):
        write_text(student / "model.safetensors", "weights")
        write_text(student / "config.json", "{}")
    with run.stage(1, "evaluate", last):
        write_text(last, "metrics")
    return run


def paths(run: RunFolder) -> tuple[Path, Path, Path]:
    here = run.round(1)
    return here.scores.path, here.student, here.metrics.path


def test_what_a_stage_left_is_done(folder: RunFolder) -> None:
    assert folder.is_done(*paths(folder))
    assert not folder.is_done(folder.round(2).scores.path)
    (folder.round(1).student / ".DS_Store").write_text("not ours")
    assert folder.is_done(folder.round(1).student)


def test_what_was_changed_is_named(folder: RunFolder) -> None:
    scores, student, _ = paths(folder)
    (student / "model.safetensors").write_bytes(bytes(7))
    with pytest.raises(RunError, match=r"student/model\.safetensors: changed since the run wrote it"):
        folder.is_done(student)
    (student / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"student/model\.safetensors: missing"):
        folder.is_done(student)
    scores.write_text("Scores")
    with pytest.raises(RunError, match=r"scores\.jsonl: changed"):
        folder.is_done(scores)


def test_what_was_lost_must_come_out_the_same(folder: RunFolder) -> None:
    scores, _, last = paths(folder)
    scores.unlink()
    assert not folder.is_done(scores)
    with folder.stage(1, "score", scores):
        write_text(scores, "scores")
    assert folder.is_done(scores)
    scores.unlink()
    with (
        pytest.raises(RunError, match=r"scores\.jsonl: was lost, and came out differently"),
        folder.stage(1, "score", scores),
    ):
        write_text(scores, "other scores")
    last.unlink()
    with folder.stage(1, "evaluate", last):  # nothing rests on the last output
        write_text(last, "other metrics")
    assert folder.is_done(last)


def test_what_is_made_anew_on_purpose_may_differ(folder: RunFolder) -> None:
    scores, _, _ = paths(folder)
    with folder.stage(1, "score", scores):
        write_text(scores, "more scores")
    assert folder.is_done(scores)


def test_an_output_without_a_digest_is_taken_and_watched(folder: RunFolder) -> None:
    """The stage was killed between its output and the digest."""
    late = folder.round(2).scores.path
    write_text(late, "whole")
    assert folder.is_done(late)
    late.write_text("half")
    with pytest.raises(RunError, match="changed"):
        folder.is_done(late)


def test_a_stage_that_fails_records_nothing(folder: RunFolder) -> None:
    late = folder.round(2).scores.path
    with pytest.raises(ValueError, match="stop"), folder.stage(2, "score", late):
        raise ValueError("stop")
    assert "rounds/02/scores.jsonl" not in folder.digests.file.read().outputs


def test_digests_of_a_file_and_of_a_folder(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    assert digests_of(tmp_path / "a") == {"b/c.txt": known}
    assert digests_of(tmp_path / "a" / "b" / "c.txt") == {"": known}


# --- the configuration ----------------------------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    with run.lock():
        write_config(run, make_config({"training": {"epochs": 2}}), "as begun")
    return run


def test_a_configuration_edited_by_hand_is_refused(begun: RunFolder) -> None:
    assert read_config(begun).training.epochs == 2
    text = begun.config.read_text(encoding="utf-8")
    begun.config.write_text(text.replace("epochs = 2.0\n", ""), encoding="utf-8")
    assert begun.config.read_text(encoding="utf-8") != text
    with pytest.raises(RunError, match=r"config\.toml: changed since the run wrote it"):
        read_config(begun)


def test_a_run_changes_only_what_it_may(begun: RunFolder) -> None:
    def config(**sections: dict[str, object]) -> RunConfig:
        return make_config({"training": {"epochs": 2}, **sections})

    recorded = read_config(begun)
    check_changes(recorded, config(teacher={"max_requests": 7}, run={"out": "moved"}))
    local, other, remote = ({"url": f"http://{host}/v1"} for host in ("127.0.0.1:1", "127.0.0.1:2", "host"))
    check_changes(config(teacher=local), config(teacher=other))
    with pytest.raises(ConfigError, match=r"teacher\.url was 'http://127\.0\.0\.1:1/v1' when this run began"):
        check_changes(config(teacher=local), config(teacher=remote))
    with pytest.raises(ConfigError, match=r"run\.seed was 0 when this run began and is 1 now"):
        check_changes(recorded, config(run={"seed": 1}))


def test_until_the_pool_is_split_another_student_may_take_the_place(begun: RunFolder) -> None:
    student = begun.round(0).student
    for model in ("a", "b"):
        record_config(make_config({"student": {"model": model}}), begun)
        assert not begun.is_done(student)
        with begun.stage(0, "prepare", student):
            write_text(student / "model.safetensors", model)
    assert read_config(begun).student.model == "b"
    begun.pool.write(PoolSplit("run", {}, (), (), ()))
    with pytest.raises(ConfigError, match=r"student\.model was 'b' when this run began and is 'a' now"):
        record_config(make_config({"student": {"model": "a"}}), begun)
    assert (student / "model.safetensors").read_text() == "b"


def test_a_run_folder_is_private(begun: RunFolder) -> None:
    assert begun.path.stat().st_mode & 0o777 == 0o700
    assert begun.config.stat().st_mode & 0o777 == 0o600
    assert begun.digests.file.path.stat().st_mode & 0o777 == 0o600
