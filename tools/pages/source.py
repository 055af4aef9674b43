"""Classes and functions as their source has them, read and not imported: most of the framework imports torch."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Found(NamedTuple):
    """A definition: its source, and its docstring."""

    source: str
    said: str


@cache
def _parsed(module: str) -> tuple[str, ast.Module]:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    text = Path(spec.origin).read_text(encoding="utf-8")
    return text, ast.parse(text)


def definition(module: str, name: str) -> Found:
    """A class or function of a module by name, with its decorators.

    Raises:
        LookupError: the module defines none of that name.
    """
    text, tree = _parsed(module)
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            lines = text.splitlines()[first - 1 : node.end_lineno]
            return Found("\n".join(lines), ast.get_docstring(node) or "")
    raise LookupError(f"{module} defines no {name}")


def signature(module: str, name: str) -> str:
    """How a function or a class is called: its source up to the docstring."""
    text, tree = _parsed(module)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            lines = text.splitlines()[node.lineno - 1 : node.body[0].lineno - 1]
            return "\n".join(lines).rstrip().removesuffix("  # fmt: skip") + "\n    ..."
        if isinstance(node, ast.ClassDef) and node.name == name:
            fields = [ast.get_source_segment(text, each) or "" for each in node.body if isinstance(each, ast.AnnAssign)]
            return f"class {name}:\n    " + "\n    ".join(fields or ["..."])
    raise LookupError(f"{module} defines no {name}")
