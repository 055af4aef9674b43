"""The Python door: what `import referee` gives, and what a plug-in imports beside it."""

from __future__ import annotations

import referee
from pages.prose import fenced, prose
from pages.source import definition, signature
from referee import testing


def page() -> str:
    """The whole page."""
    text = f"# Python\n\n{prose(referee.__doc__)}\n"
    for name in referee.__all__:
        text += _entry(f"referee.{referee._HOMES[name]}", name, "referee")
    text += f"\n## `referee.testing`\n\n{prose(testing.__doc__)}\n"
    for name in testing.__all__:
        if name != "COLOURS":
            text += _entry(f"referee.testing.{testing._HOMES[name]}", name, "referee.testing", "###")
    return text


def _entry(module: str, name: str, door: str, level: str = "##") -> str:
    if name == "hookimpl":
        return f"\n{level} `{name}`\n\nMarks a function as what a plug-in does at a [hook](hooks/index.md).\n"
    found = definition(module, name)
    anchor = f"{door}.{name}".replace(".", "-").lower()
    return f"\n{level} `{name}` {{ #{anchor} }}\n\n{fenced(signature(module, name))}\n{prose(found.said)}\n"
