r"""Restore the backslashes of LaTeX that JSON took for escapes.

A model that writes `"6 \times 7"` means a multiplication; JSON reads a tab and "imes". Backspace and form feed have no
place in a text, so they are restored before any letter. A tab, a line feed or a carriage return is restored if it
makes a command, unless the rest of it may be a word or a variable of its own: then the text around decides, and if that
says nothing either, the reply is refused.
"""

from __future__ import annotations

import re
from typing import Any

from edgeelad.errors import TeacherReplyError

_LETTERS = {"\t": "t", "\b": "b", "\f": "f", "\n": "n", "\r": "r"}
_COMMANDS = frozenset(
    re.findall(
        "[A-Za-z]+",
        """
        tag tan tanh tau tbinom text textbf textcolor textdegree textit textnormal textrm textsf textstyle
        textsubscript textsuperscript texttt textup tfrac therefore theta thickapprox thicksim thinspace tilde times
        tiny to top triangle triangledown triangleleft trianglelefteq triangleq triangleright trianglerighteq tt
        twoheadleftarrow twoheadrightarrow
        nabla natural ncong ne nearrow neg negthinspace neq newcommand newline nexists ngeq ngeqslant ngtr ni nleftarrow
        nLeftarrow nleftrightarrow nLeftrightarrow nleq nleqslant nless nmid nobreak nolimits nonumber normalsize not
        notag notin nparallel nprec nrightarrow nRightarrow nsim nsubset nsubseteq nsucc nsupset nsupseteq
        ntriangleleft ntriangleright nu nvdash nvDash nwarrow
        raisebox rangle rbrace rbrack rceil ref renewcommand restriction rfloor rgroup rho right rightarrow
        rightarrowtail rightharpoondown rightharpoonup rightleftarrows rightleftharpoons rightrightarrows
        rightsquigarrow rightthreetimes risingdotseq rlap rm rmoustache root rrbracket rtimes rule rvert rVert
        """,
    )
)
# what is left of a command, if its first letter is eaten, and could be a word or a variable at the start of a line
_WORDS = frozenset(("an", "o", "op", "t", "u", "e", "i", "exists", "less", "mid", "parallel", "prec", "sim", "subset"))
_EATEN = re.compile(r"[\t\b\f\n\r](?=[A-Za-z])")
_NAME = re.compile(r"[A-Za-z]+")
# a command long enough that what follows it without a space is not part of its name: "\timesx"
_LONG = re.compile("|".join(sorted(name for name in _COMMANDS if name[0] == "t" and len(name) > 3)))
_LITERAL_BREAK = re.compile(r"\\n(?=[^A-Za-z]|$)|\\(n[A-Za-z]+)")
_COMMAND = re.compile(r"\\[A-Za-z(\[]")


def restore(value: Any, is_unescaped: bool = False) -> Any:
    r"""Restore LaTeX in every text of a value that was read as JSON.

    Args:
        value: What JSON gave.
        is_unescaped: Whether the writer is known not to double its backslashes.

    Raises:
        TeacherReplyError: It cannot be told whether a line break or LaTeX is meant.

    >>> restore({"steps": ["6 \times 7 = 42"]})
    {'steps': ['6 \\times 7 = 42']}
    >>> restore("One.\nTwo.")
    'One.\nTwo.'
    """
    found = texts(value)
    verdicts = [_verdict(text, match) for text in found for match in _EATEN.finditer(text)]
    is_unescaped = is_unescaped or "certain" in verdicts
    if "doubtful" in verdicts and not is_unescaped and not any(_COMMAND.search(text) for text in found):
        raise TeacherReplyError("it cannot be told whether a line break or LaTeX is meant; backslashes are not doubled")
    return _mapped(value, is_unescaped)


def _restored(text: str, is_unescaped: bool) -> str:
    def replace(match: re.Match[str]) -> str:
        verdict = _verdict(text, match)
        is_latex = verdict == "certain" or (verdict == "doubtful" and is_unescaped)
        return "\\" + _LETTERS[match[0]] if is_latex else match[0]

    # a line break whose backslash was doubled once too often
    text = _LITERAL_BREAK.sub(lambda match: match[0] if match[1] in _COMMANDS else "\n" + (match[1] or "n")[1:], text)
    return _EATEN.sub(replace, text)


def _verdict(text: str, match: re.Match[str]) -> str:
    """Whether a control character before a letter is LaTeX: certain, doubtful or no."""
    character, rest = match[0], _NAME.match(text, match.end())
    assert rest is not None, "a letter follows"
    if character in "\b\f":
        return "certain"
    name = _LETTERS[character] + rest[0]
    if name not in _COMMANDS:
        return "certain" if character == "\t" and _LONG.match(name) else "no"
    # nobody puts a space before a line break, or breaks a line with a carriage return
    if rest[0] not in _WORDS or character == "\r" or text[: match.start()].endswith((" ", "(", "{", "$")):
        return "certain"
    return "doubtful"


def texts(value: Any) -> list[str]:
    """Every text in a value that was read as JSON."""
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in items for text in texts(item)]


def _mapped(value: Any, is_unescaped: bool) -> Any:
    if isinstance(value, str):
        return _restored(value, is_unescaped)
    if isinstance(value, dict):
        return {key: _mapped(item, is_unescaped) for key, item in value.items()}
    return [_mapped(item, is_unescaped) for item in value] if isinstance(value, list) else value
