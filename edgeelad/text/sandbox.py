"""A jinja2 sandbox whose templates do a bounded amount of work: a package's prompt template is a stranger's program.

Every rendering has a budget of steps (loop iterations, calls, filters, tests) and of characters and elements that the
operations read and write. What can grow (a repetition, a join, a format) is bounded before it is computed. jinja2's own
sandbox keeps templates from Python's internals, but not from taking all memory or never ending.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, Sized, ValuesView
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

# of one rendering; real templates take some dozen steps, and some ten operations on the question
MAX_STEPS = 100_000
MAX_RANGES = 10_000  # numbers of all ranges together
MAX_WORK = 40_000_000
MAX_RESULT = 4_000_000  # characters of one result
ELEMENT = 32  # characters that an element of a container counts as
NAMESPACE = 100_000
MAX_NUMBER_BITS = 512

# filters that no prompt needs, with regular expressions of unbounded time and memory
REMOVED_FILTERS = ("filesizeformat", "pprint", "random", "striptags", "urlize", "wordcount", "wordwrap", "xmlattr")
# methods, filters and functions whose result can be longer than everything they are given
GROWING = frozenset(
    {
        "batch", "center", "expandtabs", "format", "format_map", "indent", "join", "ljust", "rjust", "round", "slice",
        "strftime_now", "to_bytes", "tojson", "translate", "zfill",
    }
)  # fmt: skip
FORMATS = frozenset({"format", "format_map", "strftime_now"})


class BoundedSandbox(ImmutableSandboxedEnvironment):
    """jinja2's sandbox with a budget for each rendering; `renew` before every one. Thread-safe."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, finalize=self.measured)
        self._budget = threading.local()
        self.renew()
        for name in REMOVED_FILTERS:
            del self.filters[name]
        for table in (self.filters, self.tests):
            for name, function in list(table.items()):
                table[name] = self._bounded(name, function)
        del self.globals["lipsum"]
        self.globals["range"] = self._range

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """Add a filter that is bounded as jinja2's own are."""
        self.filters[name] = self._bounded(name, function)

    def renew(self) -> None:
        """Begin a rendering with a full budget."""
        self._budget.steps, self._budget.ranges, self._budget.work = MAX_STEPS, MAX_RANGES, MAX_WORK

    def measured(self, value: Any) -> Any:
        """A value, after its size was charged."""
        self._charge(value)
        return value

    def tick(self, num_chars: int) -> None:
        """Charge one pass through the body of a loop or macro that writes this many characters of its own."""
        self._step()
        self._pay(num_chars)

    def concatenate(self, *parts: Any) -> str:
        """Join the texts of `a ~ b`."""
        if sum(map(self._charge, parts)) > MAX_RESULT:
            raise SecurityError("a concatenation is too long")
        return "".join(map(str, parts))

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function or method if its result is of a reasonable size."""
        method = getattr(function, "__wrapped__", function)  # `str.format` comes wrapped
        owner = getattr(method, "__self__", None)
        if owner is not self:
            is_value = hasattr(owner, "__getitem__") or isinstance(owner, int)
            self._check(getattr(method, "__name__", ""), (owner, *args) if is_value else args, kwargs)
        result = super().call(context, function, *args, **kwargs)
        return result if owner is self else self.measured(result)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute a binary operation if its result is of a reasonable size."""
        sizes = [self._charge(value) if isinstance(value, Sized) else None for value in (left, right)]
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise SecurityError(f"the operator {operator} is not available here")
        if operator == "*" and sizes != [None, None]:
            count = right if sizes[0] is not None else left
            if isinstance(count, int) and count * (sizes[0] or sizes[1] or 0) > MAX_RESULT:
                raise SecurityError("a repetition is too long")
        if operator == "+" and sum(size or 0 for size in sizes) > MAX_RESULT:
            raise SecurityError("a sum of texts or lists is too long")
        if isinstance(left, int) and isinstance(right, int) and _num_bits(left, right) > MAX_NUMBER_BITS:
            raise SecurityError("a number is too large")
        return self.measured(super().call_binop(context, operator, left, right))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Parse a template, and put the calls that charge its budget into it."""
        tree = super()._parse(source, name, filename)
        _instrument(tree)
        tree.set_environment(self)
        return tree

    def _bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        num_passed = int(hasattr(function, "jinja_pass_arg"))

        @functools.wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            self._check(name, args[num_passed:], kwargs)
            result = function(*args, **kwargs)
            # what a generator does later would be charged to nobody
            return self.measured(list(result) if isinstance(result, Iterator) else result)

        return bounded

    def _check(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Charge a call with all that it is given, and refuse one whose result could be too long."""
        self._step()
        sizes = [self._charge(value) for value in (*args, *kwargs.values())]
        if name == "sum" and not all(isinstance(value, str | int | float) for value in (*args[2:], *kwargs.values())):
            raise SecurityError("only numbers can be added up")
        if name == "replace" and len(args) > 2:
            text, old, new = (str(value) for value in args[:3])
            growth = len(text) + (text.count(old) if old else len(text) + 1) * len(new)
        elif name in GROWING:
            numbers = [abs(value) for value in (*args[1:], *kwargs.values()) if isinstance(value, int)]
            growth = (sizes[0] + 1 if args else 1) * (sum(sizes[1:]) + sum(numbers) + 1)
            if name in FORMATS and args:
                growth *= 10 ** max(map(len, re.findall(r"\d+", str(args[0]))), default=0)
        else:
            return
        if growth > MAX_RESULT:
            raise SecurityError(f"the result of {name} could be too long")

    def _range(self, *arguments: int) -> list[int]:
        found = range(*arguments)
        self._budget.ranges -= len(found)
        if self._budget.ranges < 0:
            raise SecurityError(f"its ranges hold more than {MAX_RANGES} numbers")
        return list(found)

    def _step(self) -> None:
        self._budget.steps = getattr(self._budget, "steps", MAX_STEPS) - 1
        if self._budget.steps < 0:
            raise SecurityError(f"it takes more than {MAX_STEPS} steps")

    def _charge(self, value: Any) -> int:
        """Charge the size of a value, with everything in it as often as it would be written; gives the size."""
        size = 0
        waiting = [value]
        while waiting:
            item = waiting.pop()
            cost = ELEMENT
            if isinstance(item, str | bytes):
                cost = len(item) if item is value else len(item) + ELEMENT
            elif isinstance(item, Mapping):
                waiting += [*item.keys(), *item.values()]
            elif isinstance(item, list | tuple | set | frozenset | KeysView | ValuesView | ItemsView):
                waiting += item
            elif isinstance(item, Namespace):  # the one container that can hold itself
                cost = NAMESPACE
                waiting += list(object.__getattribute__(item, "_Namespace__attrs").values())
            self._pay(cost)
            size += cost
        return size

    def _pay(self, cost: int) -> None:
        self._budget.work = getattr(self._budget, "work", MAX_WORK) - cost
        if self._budget.work < 0:
            raise SecurityError(f"it handles more than {MAX_WORK} characters")


def _instrument(node: Any) -> None:
    """Put the calls that charge the budget into a syntax tree."""
    for field, value in list(node.iter_fields()):
        if isinstance(value, nodes.Node):
            _instrument(value)
            setattr(node, field, _charged(value))
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, nodes.Node):
                    _instrument(item)
            value[:] = [_charged(item) if isinstance(item, nodes.Node) else item for item in value]
    if isinstance(node, nodes.For):
        node.iter = _call("measured", node.iter)
    elif isinstance(node, nodes.Compare | nodes.Operand) and not isinstance(node.expr, nodes.Const):
        node.expr = _call("measured", node.expr)
    if isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock | nodes.Block):
        num_chars = sum(len(data.data) for part in node.body for data in part.find_all(nodes.TemplateData))
        tick = _call("tick", nodes.Const(num_chars, lineno=node.lineno))
        node.body.insert(0, nodes.ExprStmt(tick, lineno=node.lineno))


def _charged(node: Any) -> Any:
    """A node, or the call that stands for it."""
    if isinstance(node, nodes.Concat):
        return _call("concatenate", *node.nodes)
    is_slice = isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
    if isinstance(node, nodes.List | nodes.Dict) or is_slice or (isinstance(node, nodes.Tuple) and node.ctx == "load"):
        return _call("measured", node)
    return node


def _num_bits(*numbers: int) -> int:
    return sum(number.bit_length() for number in numbers)


def _call(name: str, *arguments: Any) -> nodes.Call:
    """A call of one of the environment's own methods."""
    line = arguments[0].lineno
    return nodes.Call(nodes.EnvironmentAttribute(name), list(arguments), [], None, None, lineno=line)
