"""Rewrite LaTeX and typography as plain mathematical text.

Takes text as people and models write it. Gives text in which a minus sign is "-", a product "*", a division "/", a
power "^", and braces are parentheses. A fraction of two numbers (`\\frac{1}{2}`, "½") is written with a fraction slash,
"1⁄2", which binds tighter than any operator. LaTeX commands without a counterpart stay, as `\\log`. Linear in the text.
"""

from __future__ import annotations

import re

FRACTION_SLASH = "⁄"

_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"
_VULGAR = {
    "¼": "1⁄4", "½": "1⁄2", "¾": "3⁄4", "⅐": "1⁄7", "⅑": "1⁄9", "⅒": "1⁄10", "⅓": "1⁄3", "⅔": "2⁄3", "⅕": "1⁄5",
    "⅖": "2⁄5", "⅗": "3⁄5", "⅘": "4⁄5", "⅙": "1⁄6", "⅚": "5⁄6", "⅛": "1⁄8", "⅜": "3⁄8", "⅝": "5⁄8", "⅞": "7⁄8",
}  # fmt: skip
_PLAIN: dict[str | int, str] = {
    **dict.fromkeys("−–‐‑‒﹣－", "-"),
    **dict.fromkeys("×·⋅∗✕✖✗", "*"),
    **dict.fromkeys("÷∕", "/"),
    **{first + digit: str(digit) for first in (0xFF10, 0x0660, 0x06F0, 0x0966) for digit in range(10)},
    **{0x2080 + digit: f"_{digit}" for digit in range(10)},
    **dict.fromkeys("¢￠", "¢"),
    "＋": "+", "％": "%", "٪": "%", "＝": "=", "，": ",", "．": ".", "：": ":", "（": "(", "）": ")", "￥": "¥",
    "＄": "$",
    "٫": ".", "٬": ",", "º": "°", "˚": "°", "≃": "≈", "≅": "≈", "≒": "≈", "\u200b": "", "\u2062": "", "\u2060": "",
}  # fmt: skip
_CHARACTERS = str.maketrans(_PLAIN)
_SYMBOLS = {
    **dict.fromkeys(("times", "cdot", "ast"), "*"),
    **dict.fromkeys(("approx", "simeq", "cong", "doteq"), "≈"),
    **dict.fromkeys(("le", "leq", "leqslant"), "≤"),
    **dict.fromkeys(("ge", "geq", "geqslant"), "≥"),
    **dict.fromkeys(("ne", "neq"), "≠"),
    **dict.fromkeys(("to", "rightarrow", "longrightarrow"), "→"),
    **dict.fromkeys(("Rightarrow", "Longrightarrow", "implies", "iff", "therefore", "because"), "⇒"),
    **dict.fromkeys(("ldots", "dots", "cdots", "dotsb", "dotsc", "hdots"), "…"),
    **dict.fromkeys(("circ", "degree"), "°"),
    **dict.fromkeys(("quad", "qquad", "hspace", "enspace", "newline"), " "),
    **dict.fromkeys(("lvert", "rvert", "vert", "mid"), "|"),
    **dict.fromkeys(("lparen", "lbrack"), "("),
    **dict.fromkeys(("rparen", "rbrack"), ")"),
    **dict.fromkeys(("overline", "bar"), "‾"),
    "div": "/", "pm": "±", "mp": "±", "pi": "π", "infty": "∞", "sqrt": "√", "prime": "'", "percent": "%", "pounds": "£",
    "euro": "€", "textdollar": "$", "lt": "<", "gt": ">", "sim": "≈", "equiv": "≡", "colon": ":",
}  # fmt: skip
_FRACTIONS = frozenset({"frac", "dfrac", "tfrac", "cfrac", "sfrac", "nicefrac", "xfrac"})
# commands that change only how their argument looks; those of text keep it apart from its neighbors
_TEXTS = frozenset({"text", "textrm", "textsf", "mbox", "hbox", "mathrm", "operatorname", "mathsf", "boxed", "fbox"})
_STYLES = _TEXTS | {"textbf", "textit", "emph", "underline", "mathbf", "mathit", "boldsymbol", "bm", "bf", "rm", "it"}
_IGNORED = frozenset(
    {"left", "right", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr", "displaystyle", "textstyle"}
    | {"limits", "nolimits", "tiny", "small", "large", "Large", "normalsize", "noindent", "item", "boxed"}
)
_ESCAPES = {",": "\u2009", "!": "", ";": " ", ":": " ", " ": " ", "(": " ", ")": " ", "[": " ", "]": " ", "\\": "\n"}

_RAISED = re.compile(f"[{_SUPERSCRIPTS}]+")
_VULGAR_AFTER = re.compile(rf"([0-9]?)[^\S\n]?([{''.join(_VULGAR)}])")
_PIECE = re.compile(r"\\(?P<name>[A-Za-z]+)\*?|\\(?P<escape>.)|(?P<brace>[{}])|(?P<text>[^\\{}]+)|\\", re.DOTALL)
_SIMPLE_FRACTION = re.compile(r"(\d?)\(\(\s?(-?\d[\d.,]*)\s?\)/\(\s?(-?\d[\d.,]*)\s?\)\)(?=(\d?))")
_THIN_SPACES = re.compile(r"(?<=[0-9])['’_\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))")
_SPACES = re.compile(r"[^\S\n]{2,}")
_SPACE = re.compile(r"[^\S\n]")


def plain(text: str) -> str:
    """Rewrite LaTeX and typography as plain mathematical text.

    >>> plain("$-\\\\frac{1}{2} \\\\times 10^{3}$"), plain("3½ × 2 = 4{,}000 cm²")
    ('$-1⁄2 * 10^(3)$', '3 1⁄2 * 2 = 4,000 cm^2')
    """
    text = text.translate(_CHARACTERS)
    text = _SPACES.sub(" ", text)
    text = _RAISED.sub(lambda found: "^" + found.group().translate(_LOWERED), text)
    text = _VULGAR_AFTER.sub(lambda found: (f"{found[1]} " if found[1] else "") + _VULGAR[found[2]], text)
    text = text.replace("{,}", ",")
    if "\\" in text:
        text = text.replace("~", " ").replace("&", " ")
    if "\\" in text or "{" in text:
        text = _without_latex(text)
    text = text.replace("^°", "°").replace("^(°)", "°")
    text = _SIMPLE_FRACTION.sub(_simple_fraction, text)
    return _SPACES.sub(" ", _SPACE.sub(" ", _THIN_SPACES.sub(",", text)))


def _simple_fraction(found: re.Match[str]) -> str:
    before, after = (f"{found[1]} " if found[1] else ""), (" " if found[4] else "")
    return f"{before}{found[2]}{FRACTION_SLASH}{found[3]}{after}"


_LOWERED = str.maketrans(_SUPERSCRIPTS, "0123456789+-")


def _without_latex(text: str) -> str:
    """Replace commands and braces, in one pass: nothing is ever joined twice, however deep the braces are nested."""
    written: list[str] = []
    closers: list[
        tuple[str, list[str]]
    ] = []  # of each open brace: what its end is written as, and what waits behind it
    pending: list[str] = []  # of each argument that a command still expects, the last first: what is written after it
    is_style = False  # whether a command was read whose argument only looks different

    for found in _PIECE.finditer(text):
        piece = found.group()
        if piece == "{":
            end = pending.pop() if pending else "" if is_style else ")"
            written.append("(" if end == ")" else "")
            closers.append((end, pending))
            pending, is_style = [], False
        elif piece == "}":
            if closers:
                end, pending = closers.pop()
                written.append(end)
        elif found["text"] is not None:
            pending, is_style = _write_text(piece, written, pending, is_style)
        else:
            name = found["name"]
            if name in _FRACTIONS:
                written.append("((")
                pending += ["))", ")/("]
                continue
            is_style = name in _STYLES
            if name in _TEXTS:
                written.append(" ")
            symbol = _command(name, found["escape"])
            written.append(symbol)
            if pending and symbol.strip():
                written.append(pending.pop())
    return "".join(written)


def _write_text(piece: str, written: list[str], pending: list[str], is_style: bool) -> tuple[list[str], bool]:
    """Write plain text; the first characters of it are the arguments that commands before it expect."""
    while pending and (piece := piece.lstrip()):
        written += (piece[0], pending.pop())
        piece = piece[1:]
    written.append(piece)
    return pending, is_style and not piece.strip()


def _command(name: str | None, escape: str | None) -> str:
    if name is None:
        return _ESCAPES.get(escape or "", escape or "")
    if name in _STYLES or name in _IGNORED:
        return ""
    return _SYMBOLS.get(name, f" \\{name} ")
