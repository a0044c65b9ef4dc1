"""Describe the configuration's keys, and write a configuration as commented TOML.

Written with tomlkit and not with tomli-w, which writes no comments. Every key is in the text: one that is not set is a
comment with an example value.
"""

from __future__ import annotations

import re
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

import tomlkit
from pydantic.fields import FieldInfo
from tomlkit.items import Item

from edgeelad.config import RESUMABLE, RunConfig
from edgeelad.errors import ConfigError

COMMENT_WIDTH = 110
_TYPES: dict[Any, str] = {str: "Text", int: "Integer", float: "Number", bool: "Boolean", dict: "Table", tuple: "List"}
_LIMITS = {"ge": "minimum", "gt": "above", "lt": "below", "le": "maximum"}
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the configuration.

    Attributes:
        section: Its section.
        name: Its name in the section.
        description: What it sets, in a sentence.
        allowed: Its type and range, in words.
        default: Its default; None: not set.
        example: A value to write if it is not set.
        is_resumable: Whether `--resume` may change it.
    """

    section: str
    name: str
    description: str
    allowed: str
    default: Any
    example: Any
    is_resumable: bool

    @property
    def text(self) -> str:
        """Description, range and default in a line."""
        default = "" if self.default is None else f" Default: {_item(self.default).as_string()}."
        return f"{self.description} {self.allowed}.{default}"


def describe_keys() -> Iterator[Key]:
    """Describe every key, in the order of the sections and their fields."""
    for section, field in RunConfig.model_fields.items():
        assert field.annotation is not None, "a section is a model"
        for name, info in field.annotation.model_fields.items():
            default = info.get_default(call_default_factory=True)
            example = info.examples[0] if info.examples else default
            resumable = name in RESUMABLE.get(section, ())
            yield Key(section, name, info.description or "", _allowed(info), default, example, resumable)


def dump_toml(config: RunConfig, header: str = "") -> str:
    """Write a configuration as TOML that `load_config` reads back to an equal one.

    Args:
        config: The configuration.
        header: Lines for the top of the file, written as comments.

    Raises:
        ConfigError: A value that TOML cannot hold (null).
    """
    document = tomlkit.document()
    for line in header.splitlines():
        document.add(tomlkit.comment(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", line)))
    tables: dict[str, tomlkit.items.Table] = {}
    for key in describe_keys():
        if key.section not in tables:
            if document.body:
                document.add(tomlkit.nl())
            tables[key.section] = tomlkit.table()
            tables[key.section].comment(_summary(key.section))
            document.add(key.section, tables[key.section])
        table, value = tables[key.section], getattr(getattr(config, key.section), key.name)
        for line in textwrap.wrap(key.text, COMMENT_WIDTH, break_on_hyphens=False):
            table.add(tomlkit.comment(line))
        if value is None:
            table.add(tomlkit.comment(f"{key.name} = {_item(key.example).as_string()}"))
            continue
        try:
            table.add(key.name, _item(value))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{key.section}.{key.name}: cannot be written as TOML: {error}") from None
    return tomlkit.dumps(document)


def _summary(section: str) -> str:
    annotation = RunConfig.model_fields[section].annotation
    assert annotation is not None, "a section is a model"
    return (annotation.__doc__ or "").partition("\n")[0]


def _item(value: Any) -> Item:
    """A value as TOML on one line."""
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        for name, inner in value.items():
            table.append(name, _item(inner))
        return table
    if isinstance(value, list | tuple):
        array = tomlkit.array()
        for inner in value:
            array.append(_item(inner))
        return array
    item: Item = tomlkit.item(value)
    return item


def _allowed(field: FieldInfo) -> str:
    """A field's type and range, in words."""
    kind: Any = field.annotation
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = (option for option in get_args(kind) if option is not type(None))
    if get_origin(kind) is Literal:
        return "One of " + ", ".join(get_args(kind))
    rules = [(name, getattr(rule, name)) for rule in field.metadata for name in _LIMITS if hasattr(rule, name)]
    limits = [f"{_LIMITS[name]} {limit:g}" for name, limit in rules]
    if [name for name, _ in rules] == ["ge", "le"]:
        limits = [f"{rules[0][1]:g} to {rules[1][1]:g}"]
    return ", ".join([_TYPES[get_origin(kind) or kind], *limits])
