"""Worker processes: the same trees whatever their number, bounded look-ahead, and nothing left behind."""

import itertools
import multiprocessing
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.processes import worker_pids
from fixtures.students import MAX_CONTEXT, StudentFolders, make_sum, questions

from edgeelad.engine import memory
from edgeelad.engine.blocks import MAX_BLOCKS_AHEAD
from edgeelad.engine.graph_files import Precision
from edgeelad.engine.memory import kv_share
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.tree import TreeParams
from edgeelad.engine.workers import SetAside, generate_trees
from edgeelad.errors import ModelError, PromptTooLongError
from edgeelad.records import Question

PARAMS = TreeParams(2, 2, 0.7, 0, 1.0, 24, 24, True, 5)
GREEDY = TreeParams(0, 0, 0.7, 0, 1.0, 24, 24, False, 5)
BATCH = 4


def _endless() -> Iterator[Question]:
    for number in itertools.count():
        yield Question(str(number), make_sum(number % 10, number // 10 % 10)[0].text)


def test_workers_share_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 16 << 30)
    assert kv_share(2) is None  # 4 GB each: more than one fills
    assert kv_share(64) == 128 << 20
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: None)
    assert kv_share(64) is None
    monkeypatch.undo()
    available = memory.available_memory_bytes()
    assert available is None or available > 1 << 20


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_trees_do_not_depend_on_the_number_of_workers(students: StudentFolders, precision: Precision) -> None:
    asked = questions(11)  # one worker is this process, which does not flush denormals; two are others, which do
    folder = students.trained_onnx()
    alone = list(generate_trees(folder, asked, PARAMS, EngineOptions(1, batch_size=BATCH, precision=precision)))
    together = list(
        generate_trees(folder, iter(asked), PARAMS, EngineOptions(2, batch_size=BATCH, precision=precision))
    )
    assert [tree.question for tree in alone] == asked
    assert together == alone
    assert multiprocessing.active_children() == []


def test_questions_of_one_block_start_no_process(students: StudentFolders) -> None:
    trees = generate_trees(students.trained_onnx(), questions(BATCH), GREEDY, EngineOptions(2, batch_size=BATCH))
    next(trees)
    assert multiprocessing.active_children() == []
    assert len(list(trees)) == BATCH - 1


def test_without_questions_the_student_is_opened_all_the_same(students: StudentFolders, tmp_path: Path) -> None:
    assert list(generate_trees(students.trained_onnx(), [], GREEDY, EngineOptions(2))) == []
    with pytest.raises(ModelError, match="no such folder"):
        list(generate_trees(tmp_path / "none", [], GREEDY, EngineOptions(2)))


def test_an_endless_stream_is_read_a_few_blocks_ahead(students: StudentFolders) -> None:
    num_read = 0

    def counted() -> Iterator[Question]:
        nonlocal num_read
        for question in _endless():
            num_read += 1
            yield question

    trees = generate_trees(students.trained_onnx(), counted(), GREEDY, EngineOptions(2, batch_size=BATCH))
    for number, tree in enumerate(itertools.islice(trees, 10 * BATCH)):
        assert tree.question.id == str(number)
        # a block being handed out, and for each of two workers those that it may be ahead
        assert num_read <= number + BATCH * (2 * MAX_BLOCKS_AHEAD + 1)
    trees.close()
    assert multiprocessing.active_children() == []


def test_killed_workers_are_replaced(students: StudentFolders, caplog: pytest.LogCaptureFixture) -> None:
    asked, folder = list(itertools.islice(_endless(), 8 * BATCH)), students.trained_onnx()
    whole = list(generate_trees(folder, asked, PARAMS, EngineOptions(1, batch_size=BATCH)))
    trees = generate_trees(folder, asked, PARAMS, EngineOptions(2, batch_size=BATCH))
    found = [next(trees)]
    for victim in worker_pids():  # one that is not ready yet would die without a word
        os.kill(victim, signal.SIGKILL)
    found += trees
    assert found == whole
    assert "a worker process died (killed by signal 9: out of memory, or killed by hand)" in caplog.text
    assert multiprocessing.active_children() == []


def test_a_question_that_does_not_fit_is_set_aside(students: StudentFolders) -> None:
    asked = [*questions(BATCH), Question("long", "many " * MAX_CONTEXT), *questions(BATCH, seed=1)]
    for num_workers in (1, 2):
        told: list[SetAside] = []
        trees = generate_trees(
            students.trained_onnx(),
            asked,
            GREEDY,
            EngineOptions(num_workers, batch_size=BATCH),
            on_set_aside=told.append,
        )
        assert [tree.question for tree in trees] == [question for question in asked if question.id != "long"]
        assert told == [SetAside(asked[BATCH], "prompt longer than the student's context", is_too_long=True)]


def test_an_error_of_a_worker_is_raised_here(students: StudentFolders) -> None:
    asked = [*questions(2 * BATCH), Question("long", "many " * MAX_CONTEXT)]
    with pytest.raises(PromptTooLongError, match="question long: "):
        list(generate_trees(students.trained_onnx(), asked, GREEDY, EngineOptions(2, batch_size=BATCH)))
    assert multiprocessing.active_children() == []


def test_an_error_of_the_questions_leaves_no_process(students: StudentFolders) -> None:
    def torn() -> Iterator[Question]:
        yield from questions(3 * BATCH)
        raise OSError("the pool's disk is gone")

    with pytest.raises(OSError, match="disk is gone"):
        list(generate_trees(students.trained_onnx(), torn(), GREEDY, EngineOptions(2, batch_size=BATCH)))
    assert multiprocessing.active_children() == []


ENDLESS_RUN = """
import itertools, sys
from pathlib import Path
from fixtures.processes import worker_pids
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.tree import greedy_params
from edgeelad.engine.workers import generate_trees
from edgeelad.records import Question

if __name__ == "__main__":
    asked = (Question(str(number), "What is 1 + 1?") for number in itertools.count())
    for tree in generate_trees(Path(sys.argv[1]), asked, greedy_params(24), EngineOptions(2, batch_size=4)):
        if tree.question.id == "20":
            print(*worker_pids(), flush=True)
"""


UNGUARDED = {
    "trees": """
from edgeelad.engine.tree import greedy_params
from edgeelad.engine.workers import generate_trees
from edgeelad.records import Question

asked = [Question(str(number), "What is 1 + 1?") for number in range(12)]
options = EngineOptions(2, batch_size=4)
list(generate_trees(folder, asked, greedy_params(8), options))
""",
    "score": """
from edgeelad.progress import Silent
from edgeelad.config import PoolConfig
from edgeelad.scoring.score import score_pool

questions = PoolConfig(path=str(folder.parent / "pool.jsonl"))
score_pool(folder, questions, folder.parent / "scores.jsonl", Silent(), strategy="elad", options=EngineOptions(1))
""",
}


@pytest.mark.parametrize("kind", UNGUARDED)
def test_a_script_without_the_main_guard_gets_the_cause(students: StudentFolders, tmp_path: Path, kind: str) -> None:
    script, folder = tmp_path / "script.py", tmp_path / "student"
    folder.symlink_to(students.trained_onnx())
    rows = (f'{{"id": "{number}", "question": "What is 1 + {number}?"}}\n' for number in range(5))
    (tmp_path / "pool.jsonl").write_text("".join(rows), encoding="utf-8")
    imports = "from pathlib import Path\nfrom edgeelad.engine.options import EngineOptions\n"
    head = f"{imports}folder = Path({str(folder)!r})\n"
    script.write_text(head + UNGUARDED[kind] + 'print("done")', encoding="utf-8")
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.count("Traceback") == 1  # the parent's own, and none of a worker
    assert 'put the code that calls edgeelad under: if __name__ == "__main__":' in ended.stderr.splitlines()[-1]
    guarded = head + 'if __name__ == "__main__":\n' + UNGUARDED[kind].replace("\n", "\n    ") + 'print("done")'
    script.write_text(guarded, encoding="utf-8")
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert ended.stdout == "done\n"
    # a program from standard input is imported by no process, so it needs no guard
    for path in tmp_path.glob("scores.*"):
        path.unlink()
    program = head + UNGUARDED[kind] + 'print("done")'
    ended = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, check=True)
    assert ended.stdout == "done\n"
    assert "worker" not in ended.stderr


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs process descriptors (Linux)")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent(students: StudentFolders, tmp_path: Path, how: signal.Signals) -> None:
    script = tmp_path / "run.py"
    script.write_text(ENDLESS_RUN, encoding="utf-8")
    command = [sys.executable, str(script), str(students.trained_onnx())]
    # a session of its own, so that Ctrl-C reaches the workers too, as it does in a terminal
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": paths},
    ) as parent:
        assert parent.stdout is not None
        workers = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(workers) == 3  # and their template
        if how == signal.SIGINT:
            os.killpg(parent.pid, how)
        else:
            parent.kill()
        _, errors = parent.communicate(timeout=60)
    for worker in workers:
        assert select.select([worker], [], [], 60)[0], "a worker outlived its parent"
        os.close(worker)
    # the one interrupted is the parent: no worker printed a traceback of its own
    assert errors.count("KeyboardInterrupt") == (how == signal.SIGINT)
