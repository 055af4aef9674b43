"""What MkDocs is told besides mkdocs.yml: the pages that are made of the code, and links that lead out of docs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pages import SECTIONS, everything

ROOT = Path(__file__).parents[1]
PAGES = everything()


def on_config(config: MkDocsConfig) -> None:
    """Fill the navigation's sections of generated pages, and leave out pages that this tree does not have."""
    config.nav = [entry for found in config.nav or [] if (entry := _known(found, Path(config.docs_dir)))]


def _known(entry: Any, docs: Path) -> Any:
    """An entry of the navigation; None if there is no such page. What is misspelt is found: its page has no entry."""
    if isinstance(entry, str):
        if (folder := entry.removesuffix("/index.md")) in SECTIONS and entry != folder:
            return [page for page in PAGES if page.startswith(f"{folder}/")]
        return entry if entry in PAGES or entry == "contributing.md" or (docs / entry).is_file() else None
    ((title, inside),) = entry.items()
    if isinstance(inside, list):
        return {title: [known for one in inside if (known := _known(one, docs))]}
    return {title: known} if (known := _known(inside, docs)) else None


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the generated pages, and CONTRIBUTING.md, as if they lay in docs/."""
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").replace("](docs/", "](")
    for path, text in {**PAGES, "contributing.md": guide}.items():
        files.append(File.generated(config, path, content=text))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to the sources lead nowhere on the site: their words stay."""
    there = {path.name for path in (ROOT / "docs").glob("*.md")}

    def kept(link: re.Match[str]) -> str:
        out = link[2].startswith("../") or (page.file.src_uri == "contributing.md" and link[2] not in there)
        return link[1] if out and "://" not in link[2] else link[0]

    return re.sub(r"\[([^]]+)\]\(([^)#\s]+)\)", kept, markdown)
