"""Every message with which something is refused, by the kind of error, as the code has it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from referee import errors
from referee.errors import RefereeError

from pages.parts import built_in
from pages.prose import prose

GAP = "…"
"""Stands for what differs from case to case."""
ROOT = Path(__file__).parents[2]


def page() -> str:
    """The whole page."""
    text = f"""# All messages

Every sentence with which `referee` refuses something, with {GAP} where names and numbers stand, so that a search finds
it. Each says what mends it; [troubleshooting](troubleshooting.md) has the frequent ones at length.
"""
    found = messages()
    for family in RefereeError.__subclasses__():
        text += f"\n## {family.__name__}\n\n{prose(family.__doc__)}\n"
        text += "".join(f"- {_safe(message)}\n" for message in sorted(found[family.__name__]))
    return text


def _safe(message: str) -> str:
    return " ".join(message.replace("`", "").split()).join(("`", "`"))


def messages() -> dict[str, set[str]]:
    """The texts by the name of their error."""
    families = {name for name in vars(errors) if name.endswith("Error")}
    found: dict[str, set[str]] = defaultdict(set)
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in families and node.args:
                text = "".join(_pieces(node.args[0])).strip()
                if text.strip(f"{GAP} ."):
                    found[node.func.id].add(text)
    return found


def _sources() -> Iterator[Path]:
    from importlib.util import find_spec

    for name in ["referee", *(entry.module for entry in built_in())]:
        spec = find_spec(name)
        assert spec
        for folder in spec.submodule_search_locations or ():
            yield from sorted(Path(folder).rglob("*.py"))


def _pieces(node: ast.expr) -> Iterator[str]:
    """A text with gaps of an f-string, or of texts that are added."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        for part in node.values:
            yield from _pieces(part)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from _pieces(node.left)
        yield from _pieces(node.right)
    else:
        yield GAP
