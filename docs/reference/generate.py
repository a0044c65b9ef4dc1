"""The reference pages that are generated from the program: configuration keys, commands' help, files of a run folder.

A hook of mkdocs: a line `<!-- generate: configuration -->` (or `commands`, or `files`) in a page is replaced when the
page is built, so the documentation cannot say anything else than the program does.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

MARK = re.compile(r"^<!-- generate: (\w+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of a page (mkdocs calls this for every page)."""
    pages = {"configuration": configuration, "commands": commands, "files": files}
    return MARK.sub(lambda mark: "\n".join(pages[mark[1]]()), markdown)


def configuration() -> Iterator[str]:
    """Every section of a run's configuration as a table of its keys."""
    from edgeelad.config import RunConfig

    for name, field in RunConfig.model_fields.items():
        section = field.annotation
        assert isinstance(section, type), name
        assert issubclass(section, BaseModel), name
        yield f"\n## [{name}]\n\n{(section.__doc__ or '').strip()}\n"
        yield "| key | type | default | meaning |\n|---|---|---|---|"
        for key, info in section.model_fields.items():
            yield f"| `{key}` | {_type(section, key)} | {_default(info)} | {_text(info.description or '')} |"


def commands() -> Iterator[str]:
    """Every command's help, as `--help` prints it."""
    from edgeelad.cli.commands import cli

    yield from _help(cli, click.Context(cli, info_name="edgeelad", max_content_width=100, terminal_width=100))


def files() -> Iterator[str]:
    """Every JSON file of a run folder as a table of its record's fields."""
    from edgeelad.record_files import RecordFile, RowFile
    from edgeelad.run.folder import RunFolder

    run = RunFolder(Path("runs/a"))
    for file in [*vars(run).values(), *vars(run.round(1)).values()]:
        if not isinstance(file, RecordFile | RowFile):
            continue
        summary, meanings = _docstring(file.kind)
        yield f"\n### {file.path.relative_to(run.path).as_posix()}\n"
        yield f"{'One record' if isinstance(file, RecordFile) else 'One record per line'}. {summary}\n"
        yield "| field | type | meaning |\n|---|---|---|"
        for item in dataclasses.fields(file.kind):
            yield f"| `{item.name}` | `{_text(str(item.type))}` | {_text(meanings.get(item.name, ''))} |"


def _docstring(record: type) -> tuple[str, dict[str, str]]:
    """The text of a record's docstring, and what its section "Attributes" says of each field."""
    text, _, attributes = inspect.cleandoc(record.__doc__ or "").partition("Attributes:")
    found = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", attributes, re.MULTILINE)
    return text.strip(), {name: re.sub(r"\s+", " ", meaning) for name, meaning in found}


def _help(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"\n## {context.command_path}\n\n```text\n{command.get_help(context)}\n```"
    for name in command.list_commands(context) if isinstance(command, click.Group) else ():
        sub = command.get_command(context, name)
        assert sub is not None, name
        yield from _help(
            sub, click.Context(sub, parent=context, info_name=name, max_content_width=100, terminal_width=100)
        )


def _type(section: type[BaseModel], key: str) -> str:
    """The values that a key takes, by its JSON schema."""
    schema = section.model_json_schema()["properties"][key]
    choices = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
    return _text(" or ".join(_range(part) for part in choices))


def _range(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    limits = [
        f"{sign} {schema[name]:g}"
        for name, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if name in schema
    ]
    kind = {"object": "table", "array": "list"}.get(schema.get("type", "any"), schema.get("type", "any"))
    return " ".join([kind, *limits])


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    return "unset" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def _text(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
