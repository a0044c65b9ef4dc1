"""A package in the runtimes that it is for: edgeelad, Optimum, onnxruntime-genai and transformers.js, as it is.

Each must generate the golden outputs: the tokens that edgeelad's engine generated when the package was written.
"""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.students import BOS_TOKEN, StudentFolders, make_student, questions

from edgeelad.config import ExportConfig
from edgeelad.engine.codec import Codec
from edgeelad.package.golden import Golden, read_golden
from edgeelad.package.info import PackageInfo
from edgeelad.package.verify import verify_package
from edgeelad.package.write import write_package
from edgeelad.records import Question
from edgeelad.text.chat_template import chat_template
from edgeelad.text.prompts import PromptFormat, question_text

TRANSFORMERS_JS = "@huggingface/transformers@4.3.1"
RUN_PACKAGE = Path(__file__).parents[1] / "fixtures" / "run_package.mjs"
CHOICE = Question("choice", "Which is red?", "choice", ("sky", "blood"))
GOLDEN = (*questions(2), CHOICE)
CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<bos>system\\nBe terse.<eos>\\n' }}{% endif %}\n"
    "{% for message in messages %}\n"
    "    {{- '<bos>' + message['role'] + '\\n' + message['content'] + '<eos>' + '\\n' }}\n"
    "{% endfor %}\n"
    "{%- if add_generation_prompt %}{{ '<bos>assistant\\n' }}{% if enable_thinking is false %}{{ 'Now: ' }}{% endif %}"
    "{% endif %}\n"
)
PROMPTS = {
    "plain": PromptFormat(),
    "plain with everything": PromptFormat(
        '{{ bos_token }}{{ system_prompt }}\n{{ instruction }}: "{{ question }}"\n\n', False, 'Say "é" {% now %}',
        BOS_TOKEN, "<eos>", True, "Be\tkind.",
    ),
    "chat": PromptFormat(CHATML, True, add_special_tokens=False),
    "chat with everything": PromptFormat(
        CHATML + "\n", True, "Explain.", BOS_TOKEN, "<eos>", False, "You’re\n\\kind.", {"enable_thinking": False}
    ),
    "chat with blanks": PromptFormat("\n  {% if true %}\n {{ messages[0].content }}\n  {% endif %}\n\n", True),
    "plain with blanks": PromptFormat("  {% if true %}\n {{ question }}\n  {% endif %}\n"),
    "plain with options": PromptFormat("{{ style['a'][0] }}{{ none_at_all is none }} {{ question }}", template_options={
        "style": {"a": [1.5, True]}, "none_at_all": None}),
}  # fmt: skip
STUDENTS = ("tied", "untied", "qwen3 tied", "qwen3 untied", "gpt2", "bos", "chat", "int4", "fp32", "no engine")


def exported(name: str, students: StudentFolders, root: Path) -> Path:
    """The onnx folder of one of STUDENTS."""
    if name == "int4":
        from edgeelad.export import export_student

        config = ExportConfig(quantize="int4", num_parity_prompts=1)
        export_student(students.plain(), root / "int4", config, parity_questions=questions(1))
        return root / "int4"
    if name == "no engine":
        return students.standard(students.plain())
    if name == "chat":
        folder = Path(shutil.copytree(students.onnx(), root / "chat"))
        PROMPTS["chat with everything"].save(folder)
        return folder
    if name.startswith("qwen3"):  # as Qwen3-0.6B's, its heads are not the width divided by their number
        folder = make_student(root / name, "qwen3", is_tied="untied" not in name, head_dim=32)
        return students.exported(folder)
    family = "gpt2" if name == "gpt2" else "llama"
    return students.onnx(family, is_tied=name != "untied", has_bos=name == "bos")


@pytest.fixture(scope="module")
def packages(students: StudentFolders, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runtimes")
    folders = {}
    for name in STUDENTS:
        precision = name if name in ("int4", "fp32") else "int8"
        info = PackageInfo("org/tiny", precision, GOLDEN, max_explanation_tokens=24, include_scoring=name == "tied")
        folders[name] = write_package(exported(name, students, root), root / f"package-{name}".replace(" ", "-"), info)
    return folders


@pytest.fixture(scope="module")
def node_modules() -> Path:
    """A folder where node finds transformers.js; kept in the user's cache."""
    npm = shutil.which("npm")
    if shutil.which("node") is None or npm is None:
        pytest.skip("needs node and npm")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edgeelad-tests" / TRANSFORMERS_JS[1:]
    if not (cache / "complete").exists():
        cache.mkdir(parents=True, exist_ok=True)
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(cache)]
        done = subprocess.run(
            [npm, "install", *options, TRANSFORMERS_JS], capture_output=True, encoding="utf-8", check=False
        )
        if done.returncode:
            pytest.skip(f"npm cannot install {TRANSFORMERS_JS}: {done.stderr.strip().splitlines()[0]}")
        (cache / "complete").touch()
    return cache


@pytest.fixture(params=STUDENTS)
def package(request: pytest.FixtureRequest, packages: dict[str, Path]) -> Path:
    return packages[request.param]


def asked(row: Golden) -> list[dict[str, str]]:
    """A golden question as a chat."""
    return [{"role": "user", "content": question_text(Question(row.id, row.question, "text", row.choices))}]


def completion(ids: list[int], row: Golden, codec: Codec) -> tuple[int, ...]:
    """The tokens after a prompt, without the end token."""
    assert ids[: len(row.prompt_ids)] == list(row.prompt_ids)
    return tuple(id_ for id_ in ids[len(row.prompt_ids) :] if id_ not in codec.eos_ids)


@pytest.mark.parametrize("name", PROMPTS)
def test_the_chat_template_is_the_prompt(name: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    prompt = PROMPTS[name]
    for question in GOLDEN:
        one = [{"role": "user", "content": question_text(question)}]
        before = [("system", "x"), ("user", "y"), ("assistant", "z")]
        for chat in (one, [{"role": role, "content": text} for role, text in before] + one):
            for prefix in ("", "<bos><pad>"):
                template = chat_template(prompt, prefix)
                (text,), _ = render_jinja_template([chat], chat_template=template, bos_token="no", eos_token="no")
                assert text == prefix + prompt.render(question)


def test_edgeelad_generates_the_golden_outputs(package: Path) -> None:
    assert verify_package(package).is_ok


def test_optimum_generates_the_golden_outputs(package: Path) -> None:
    from optimum.onnxruntime import ORTModelForCausalLM, pipeline
    from transformers import AutoTokenizer

    codec, tokenizer = Codec.load(package), AutoTokenizer.from_pretrained(package)
    model = ORTModelForCausalLM.from_pretrained(package)
    explain = pipeline("text-generation", str(package))
    for row in read_golden(package):
        question = Question(row.id, row.question, "text", row.choices)
        inputs = tokenizer(codec.prompt_format.render(question), return_tensors="pt")
        if not codec.prompt_format.add_special_tokens:
            assert inputs["input_ids"].tolist() == [list(row.prompt_ids)]
        ids = model.generate(**inputs, max_new_tokens=row.max_tokens)[0].tolist()
        assert completion(ids, row, codec) == row.completion_ids
        (chat,) = explain(asked(row), max_new_tokens=row.max_tokens)
        assert chat["generated_text"][-1]["content"] == row.text
    (chat,) = explain(asked(row))  # the package's own limit
    assert len(codec.encode_completion(chat["generated_text"][-1]["content"])) >= 8


def test_onnxruntime_genai_generates_the_golden_outputs(package: Path) -> None:
    og = pytest.importorskip("onnxruntime_genai", reason="needs onnxruntime-genai")
    codec, model = Codec.load(package), og.Model(str(package))
    tokenizer = og.Tokenizer(model)
    for row in read_golden(package):
        prompt = tokenizer.apply_chat_template(json.dumps(asked(row)), add_generation_prompt=True)
        prompt_ids = tokenizer.encode(prompt)
        assert prompt_ids.tolist() == list(row.prompt_ids)
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=len(row.prompt_ids) + row.max_tokens)
        generator = og.Generator(model, params)
        generator.append_tokens(prompt_ids)
        while not generator.is_done():
            generator.generate_next_token()
        assert completion(generator.get_sequence(0).tolist(), row, codec) == row.completion_ids


@pytest.mark.node
def test_transformers_js_generates_the_golden_outputs(packages: dict[str, Path], node_modules: Path) -> None:
    command = ["node", RUN_PACKAGE, node_modules, *packages.values()]
    done = subprocess.run([str(part) for part in command], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    found = iter([json.loads(line) for line in done.stdout.splitlines()])
    for package in packages.values():
        codec = Codec.load(package)
        for row in read_golden(package):
            generated = next(found)
            assert (generated["name"], generated["id"]) == (package.name, row.id)
            assert completion(generated["ids"], row, codec) == row.completion_ids
            assert generated["text"] == row.text
    assert next(found, None) is None


@pytest.fixture(scope="module")
def documented(students: StudentFolders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the student that explains sums, in a folder that is named as in its card."""
    root = tmp_path_factory.mktemp("documented")
    info = PackageInfo("org/tiny", "int8", tuple(questions(1)), max_explanation_tokens=64)
    return write_package(students.trained_onnx(), root / "FOLDER", info)


def snippets(package: Path, language: str) -> list[str]:
    """The commands and programs of a package's card."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (package / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def printed(command: list[str], package: Path) -> str:
    """What a program prints that runs beside a package."""
    done = subprocess.run(command, cwd=package.parent, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_commands_of_the_card(documented: Path) -> None:
    (commands,) = snippets(documented, "bash")
    for name, expected in (("run", read_golden(documented)[0].text), ("verify", "verified")):
        (line,) = [line for line in commands.splitlines() if line.startswith(f"edgeelad {name} ")]
        arguments = shlex.split(line, comments=True)[1:]
        assert printed([sys.executable, "-m", "edgeelad", *arguments], documented).endswith(expected)


def test_the_python_programs_of_the_card(documented: Path) -> None:
    programs = snippets(documented, "python")
    assert len(programs) == 2
    for program in programs:
        if "onnxruntime_genai" in program and importlib.util.find_spec("onnxruntime_genai") is None:
            continue
        assert printed([sys.executable, "-c", program], documented) == read_golden(documented)[0].text


@pytest.mark.node
def test_the_javascript_program_of_the_card(documented: Path, node_modules: Path) -> None:
    (program,) = snippets(documented, "js")
    script = node_modules / f"card-{os.getpid()}.mjs"
    script.write_text(program)
    try:
        assert printed(["node", str(script)], documented) == read_golden(documented)[0].text
    finally:
        script.unlink()
