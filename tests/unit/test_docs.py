"""The documentation says what the program does: keys, commands, messages, files, links."""

import dataclasses
import re
import runpy
from pathlib import Path

import pytest

from edgeelad.config import RunConfig
from edgeelad.records import Annotation
from edgeelad.run.scores import ScoreRow

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATE = runpy.run_path(str(DOCS / "reference" / "generate.py"))
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
SECTIONS = {name: field.annotation for name, field in RunConfig.model_fields.items()}


@pytest.fixture(scope="module")
def sources() -> str:
    """All string literals as one text, adjacent ones joined."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "edgeelad").rglob("*.py")))
    return re.sub(r'"\s*\n\s*f?"', "", text)


def test_every_key_is_in_the_reference_with_a_description() -> None:
    rows = GENERATE["on_page_markdown"]("<!-- generate: configuration -->").splitlines()
    table = {row.split("|")[1].strip(" `"): row for row in rows if row.startswith("| `")}
    for section in SECTIONS.values():
        for key in section.model_fields:
            assert table[key].split("|")[-2].strip(), f"{key} has no description"
            assert table[key].split("|")[2].strip(), f"{key} has no type"


def test_a_page_shows_ranges_defaults_and_choices() -> None:
    page = GENERATE["on_page_markdown"]("before\n\n<!-- generate: configuration -->\n\nafter")
    assert page.startswith("before\n")
    assert page.endswith("\nafter")
    assert "| `exploration_share` | number ≥ 0 ≤ 1 | `0.15` |" in page
    assert '| `mode` | `auto`, `revise`, `rationale` | `"auto"` |' in page
    assert "| `max_usd` | number > 0 | unset |" in page


def test_every_command_is_in_the_reference() -> None:
    page = GENERATE["on_page_markdown"]("<!-- generate: commands -->")
    for command in ("distill", "score", "eval", "export", "run", "serve", "verify", "report", "ledger stats"):
        assert f"## edgeelad {command}\n" in page
    assert "--question-field" in page


def test_every_file_of_a_run_is_in_the_reference_with_its_fields() -> None:
    page = GENERATE["on_page_markdown"]((DOCS / "reference" / "files.md").read_text(encoding="utf-8"))
    rows = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    for name in ("pool.json", "state.json", "audit.jsonl", "metrics.jsonl", "summary.json"):
        assert f"### {name}\n" in page
    for name in ("scores", "selected", "plan", "annotations", "answers"):
        assert f"### rounds/01/{name}.jsonl\n" in page
    assert not re.findall(r"^\| `\w+` .*\|  \|$", page, re.MULTILINE), "a field has no meaning"
    assert {field.name for field in dataclasses.fields(ScoreRow)} <= rows
    assert {field.name for field in dataclasses.fields(Annotation)} <= rows
    assert "| `mean_entropy` | `float` | Of the greedy explanation's tokens (nats). |" in page


def test_messages_in_troubleshooting_are_those_of_the_program(sources: str) -> None:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^### `(.+)`$", text, re.MULTILINE)
    assert len(messages) > 15
    for message in messages:
        assert message in sources or message.replace('"', '\\"') in sources, f"no message holds {message!r}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_keys_and_flags_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.name == "LOG.md":  # it tells what was, too
        return
    commands = GENERATE["on_page_markdown"]("<!-- generate: commands -->")
    names = "|".join(SECTIONS)
    for section, key in re.findall(rf"`(?:[^`\n]*[ =])?({names})\.([a-z_]+)\b[^`\n]*`", text):
        if key not in ("py", "toml", "jsonl", "json", "md", "html"):
            assert key in SECTIONS[section].model_fields, f"{section}.{key} is no key"
    for section, key in re.findall(rf"--set ({names})\.([a-z_]+)=", text):
        assert key in SECTIONS[section].model_fields, f"{section}.{key} is no key"
    for command in re.findall(r"^ {4,}(?:\$ )?(edgeelad .*)$", text, re.MULTILINE):
        for flag in re.findall(r"(?<!\S)--[a-z][a-z-]+", command.split("#")[0]):
            assert flag in commands, f"{command}: no command has {flag}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{target} is not there"
