"""The reference pages that are generated from the program: every configuration key and every command's help.

A hook of mkdocs: a line `<!-- generate: configuration -->` or `<!-- generate: commands -->` in a page is replaced when
the page is built, so the documentation cannot say anything else than the program does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

MARK = re.compile(r"^<!-- generate: (\w+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of a page (mkdocs calls this for every page)."""
    return MARK.sub(lambda mark: "\n".join({"configuration": configuration, "commands": commands}[mark[1]]()), markdown)


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


def _help(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"\n## {context.command_path}\n\n```text\n{command.get_help(context)}\n```"
    for name, sub in getattr(command, "commands", {}).items():
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
