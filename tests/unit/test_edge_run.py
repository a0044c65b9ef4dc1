import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest
from fixtures.students import questions

from edgeelad.api.student import load
from edgeelad.cli.student import explain_aloud
from edgeelad.edge.question import make_question
from edgeelad.engine.generate import SequenceRequest
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.sampling import SamplingParams
from edgeelad.engine.student import Student
from edgeelad.errors import PackageError, PromptTooLongError, UsageError
from edgeelad.package.info import PackageInfo
from edgeelad.package.write import write_package

QUESTIONS = tuple(questions(3))
ASKED = QUESTIONS[0].text


@pytest.fixture(scope="module")
def package(students, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    info = PackageInfo("org/tiny", "int8", QUESTIONS, max_explanation_tokens=24)
    return write_package(students.trained_onnx(), folder / "package", info)


def run(package, question, max_tokens=None):
    with load(package) as student:
        return "".join(explain_aloud(student, question, max_tokens))


def ended(stream):
    """What a stream returns."""
    while True:
        try:
            next(stream)
        except StopIteration as end:
            return end.value


def test_the_stream_is_the_explanation(package):
    with Student.open(package, EngineOptions.for_device()) as student:
        question = make_question(ASKED, "number")
        (tree,) = student.explain([question], 24)
        assert "".join(student.stream(question, 24)) == tree.text
        for max_tokens in (1, 5, 24, 10_000):
            (short,) = student.explain([question], max_tokens)
            assert ended(student.stream(question, max_tokens)) == (short.text, short.finish_reason)
    assert run(package, ASKED).startswith(tree.text)
    command = [sys.executable, "-m", "edgeelad", "run", str(package), ASKED]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == run(package, ASKED)
    row = json.loads(subprocess.run([*command, "--json"], check=True, capture_output=True, text=True).stdout)
    assert row == {
        "question": ASKED,
        "steps": list(tree.steps),
        "answer": tree.answer,
        "text": tree.text,
        "finish_reason": tree.finish_reason,
    }


def test_an_answer_that_was_not_stated_is_said(package, monkeypatch):
    assert run(package, ASKED, max_tokens=1).endswith("(no answer was stated)\n")
    for text, finish_reason, ending in (
        ("2 + 2 = 4\nThe answer is 4", "eos", "is 4\n"),
        ("2 + 2 = 4", "eos", "= 4\n(answer: 4)\n"),
        ("2 + 2 = 4", "length", "= 4\n(no answer was stated)\n"),
        ("2 + 2 = 4\nThe answer is 4", "length", "is 4\n"),
    ):

        def stream(*_, text=text, finish_reason=finish_reason):
            yield text
            return text, finish_reason

        monkeypatch.setattr(Student, "stream", stream)
        assert run(package, ASKED).endswith(ending)


def test_limits(package):
    assert len(run(package, ASKED, max_tokens=3)) < len(run(package, ASKED))
    with pytest.raises(PromptTooLongError):
        run(package, "word " * 500)


def test_questions_that_are_none(package):
    for question in ("", " \n"):
        with pytest.raises(UsageError, match="the question is empty"):
            run(package, question)
    with pytest.raises(UsageError, match="not UTF-8"):
        run(package, "caf\udce9")
    with pytest.raises(PackageError, match="no such folder; name a package"):
        run(package / "nowhere", ASKED)


def served_logprobs(package, graph):
    """Log-probabilities of the explanation of ASKED, as a server on this graph writes it."""
    with Student.open(package, EngineOptions(precision="int8", graph=graph)) as student:
        batch = student.open_batch(1)
        prompt = student.codec.encode_prompt(make_question(ASKED, "number"))
        sequence = batch.add(SequenceRequest(tuple(prompt), SamplingParams(24)))
        while batch.live:
            batch.step()
        return sequence.logprobs


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
@pytest.mark.parametrize("has_rows", [False, True])
def test_serving_a_package(students, package, tmp_path, has_rows):
    """A server runs on the graph for many rows if the package has it."""
    if has_rows:
        info = PackageInfo("org/tiny", "int8", QUESTIONS, max_explanation_tokens=24, include_scoring=True)
        package = write_package(students.trained_onnx(), tmp_path / "package", info)
    code = (
        "import functools, pathlib, sys; from edgeelad.edge.serve import ServeOptions, serve_package as s; "
        "s(pathlib.Path(sys.argv[1]), ServeOptions(port=0), functools.partial(print, flush=True))"
    )
    command = [sys.executable, "-c", code, str(package)]
    with (
        (tmp_path / "stderr").open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as server,
    ):
        try:
            url, _, name = server.stdout.readline().partition(" serves ")
            assert name == "tiny-edgeelad\n", (tmp_path / "stderr").read_text()
            messages = [{"role": "user", "content": ASKED}]
            body = json.dumps({"model": "tiny-edgeelad", "messages": messages, "logprobs": True}).encode()
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{url}/chat/completions", body, headers)
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = json.load(response)
            with Student.open(package, EngineOptions.for_device()) as student:
                (tree,) = student.explain([make_question(ASKED, "number")], 24)
            assert answer["choices"][0]["message"]["content"] == tree.text
            assert answer["choices"][0]["finish_reason"] == ("length" if tree.finish_reason == "length" else "stop")
            assert answer["usage"]["prompt_tokens"] == tree.tokens.prompt
            found = [row["logprob"] for row in answer["choices"][0]["logprobs"]["content"]]
            graphs = {graph: served_logprobs(package, graph)[: len(found)] for graph in ("engine", "rows")}
            assert (graphs["rows"] != graphs["engine"]) == has_rows
            assert found == graphs["rows"]
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
    assert server.returncode == 0
    assert (tmp_path / "stderr").read_text() == ""
