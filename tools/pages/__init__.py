"""The pages of the documentation that are made of the code: what it says of itself, in Markdown. Imports no torch.

`everything` gives them by their path in the site; `tools/mkdocs_hook.py` hands them to MkDocs. Nothing is written into
the tree, so a page cannot lag behind what it tells of.
"""

from __future__ import annotations

from pages import commands, configuration, hooks, messages, parts, python

SECTIONS = {"commands": commands, "plug-ins": parts, "hooks": hooks}
"""Folders of pages, each with an index."""
SINGLES = {"configuration.md": configuration, "python.md": python, "messages.md": messages}


def everything() -> dict[str, str]:
    """All generated pages: path in the site to Markdown."""
    found = {path: module.page() for path, module in SINGLES.items()}
    for folder, module in SECTIONS.items():
        found |= {f"{folder}/{name}.md": text for name, text in module.pages().items()}
    return found
