"""Every message with which something is refused, by the kind of error, as the code has it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from pages.parts import built_in
from pages.prose import prose
from referee import errors
from referee.errors import RefereeError

GAP = "…"
"""Stands for what differs from case to case."""


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
    for path in sources():
        calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
        for call in calls:
            if isinstance(call.func, ast.Name) and call.func.id in families and call.args:
                text = template(call.args[0])
                if text.strip(f"{GAP} ."):
                    found[call.func.id].add(text)
    return found


def sources() -> Iterator[Path]:
    """All Python files of the framework and of the built-in plug-ins."""
    for name in ["referee", *(entry.module for entry in built_in())]:
        spec = find_spec(name)
        assert spec
        for folder in spec.submodule_search_locations or ():
            yield from sorted(Path(folder).rglob("*.py"))


def template(node: ast.expr) -> str:
    """A text as the code has it, with gaps."""
    return "".join(_pieces(node)).strip()


def _pieces(node: ast.expr) -> Iterator[str]:
    """The pieces of an f-string, or of texts that are added."""
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
