"""The command: a page for each word after `referee`, with every option, as the command itself knows them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer
from rich.text import Text

from pages.prose import fenced, plain
from referee import plugins as discovery
from referee.command import app as cli

ENVIRONMENT = {
    discovery.ENVIRONMENT: "Names of the plug-ins to load, comma separated; empty for none. The others are blocked.",
    discovery.TRACE: "1 says on stderr which hook calls which plug-in.",
    "HF_HOME": "Where the Hugging Face libraries keep what they fetch: full-size zoos lie below it.",
}


def root() -> Any:
    """The whole command, as click sees it."""
    return typer.main.get_command(cli.app)


def walk(command: Any, name: str = "referee", parent: Any = None) -> Iterator[tuple[str, Any, Any]]:
    """A command and all below it: full name, command, context."""
    context = command.context_class(command, info_name=name.rpartition(" ")[2], parent=parent)
    yield name, command, context
    if hasattr(command, "list_commands"):
        for word in command.list_commands(context):
            yield from walk(command.get_command(context, word), f"{name} {word}", context)


def pages() -> dict[str, str]:
    """A page for each command at the top, what is below it included; and an index."""
    found: dict[str, str] = {}
    rows = []
    for name, command, context in sorted(walk(root()), key=lambda found: _rank(found[0])):
        words = name.split()[1:]
        if not words:
            top = _body(command, context)
            continue
        if len(words) == 1:
            rows.append(f"- [`{name}`]({words[0]}.md): {_words(command)[0]}")
            found[words[0]] = f"# `{name}`\n\n" + _body(command, context)
        else:
            found[words[0]] += f"\n## `{name}` {{ #{'-'.join(words[1:])} }}\n\n" + _body(command, context)
    listed = "\n".join(rows)
    environment = "\n".join(f"`{name}`\n:   {said}\n" for name, said in ENVIRONMENT.items())
    index = f"# The command\n\n{top}\n## Commands\n\n{listed}\n\n## Environment variables\n\n{environment}"
    return {"index": index} | found


def _rank(name: str) -> int:
    """Where a command stands in what `referee.command.app` says of itself; below it what is below it."""
    top = name.split()[1:2]
    said = re.findall(r"\w+", (cli.__doc__ or "").splitlines()[0])
    return said.index(top[0]) if top and top[0] in said else len(said) if top else -1


def _words(command: Any) -> tuple[str, str]:
    """What a command says of itself: its words, and its examples."""
    said = command.help or ""
    found = re.findall(r"\[dim\](referee .*?)\[/dim\]", said, flags=re.DOTALL)
    rest = re.sub(r"\[dim\]referee .*?\[/dim\]", "", said, flags=re.DOTALL)
    return plain(Text.from_markup(rest).plain), "\n".join(inspect.cleandoc(code) for code in found)


def _body(command: Any, context: Any) -> str:
    words, code = _words(command)
    parameters = [p for p in command.get_params(context) if not getattr(p, "hidden", False)]
    places = [_place(p) if p.required else f"[{_place(p).strip('[]')}]" for p in parameters if _is_argument(p)]
    more = ["COMMAND ..."] if hasattr(command, "list_commands") else []
    text = f"{words}\n\n" + fenced(" ".join([context.command_path, "[OPTIONS]", *places, *more]), "text")
    if code:
        text += "\n" + fenced(code, "sh")
    if command.epilog:
        text += "\n" + "\n\n".join(plain(Text.from_markup(p).plain) for p in command.epilog.split("\n\n")) + "\n"
    return text + "\n" + "\n".join(_entry(parameter, context) for parameter in parameters)


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _place(parameter: Any) -> str:
    """What stands for an argument on the usage line."""
    return str(parameter.metavar or parameter.name.upper())


def _entry(parameter: Any, context: Any) -> str:
    names, said = parameter.get_help_record(context)
    said = re.sub(r"\s*\[(?:dim\])?(default: [^\[]*?)(?:\[/dim)?\]$", r" (\1)", said).strip()
    said = plain(Text.from_markup(said).plain)
    each = [_place(parameter)] if _is_argument(parameter) else re.split(", | / ", names)
    return f"{', '.join(f'`{name}`' for name in each)}\n:   {said or 'Must be given.'}\n"
