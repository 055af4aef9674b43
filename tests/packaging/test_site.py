"""The documentation builds without a warning, and nothing is left out: every hook, option and command stands in it.

Links lead somewhere, nothing is fetched from elsewhere, words are found, and it fits on a phone.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort
from pages import commands, hooks, parts
from pages.configuration import TABLES
from pydantic import BaseModel

import referee
from referee.hooks import Hooks
from referee.plugins import KINDS, hook_of

ROOT = Path(__file__).parents[2]
LARGEST = 4 << 20
"""Bytes of all pictures together."""


class Page(HTMLParser):
    """Tags, ids and words of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.words = " ".join(self.words.split())
        self.ids = {attributes[key] for _, attributes in self.tags for key in ("id", "name") if key in attributes}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` builds it: a warning ends it."""
    folder = tmp_path_factory.mktemp("site")
    logging.getLogger("mkdocs").setLevel(logging.INFO)
    return built(ROOT / "docs", folder)


def built(docs: Path, folder: Path) -> Path:
    build(load_config(str(ROOT / "mkdocs.yml"), docs_dir=str(docs), site_dir=str(folder), strict=True))
    return folder


def test_a_link_to_nowhere_ends_the_build(tmp_path: Path) -> None:
    docs = Path(shutil.copytree(ROOT / "docs", tmp_path / "docs"))
    (docs / "index.md").write_text("# referee\n\n[gone](nowhere.md)\n", encoding="utf-8")
    with pytest.raises(Abort):
        built(docs, tmp_path / "site")


def test_a_page_that_the_navigation_names_may_be_missing_but_none_may_be_left_out(tmp_path: Path) -> None:
    docs = Path(shutil.copytree(ROOT / "docs", tmp_path / "docs"))
    (docs / "reliability.md").write_text("# Reliability\n\nSee [the loop](../core/referee/inversion.py).\n")
    page = read(built(docs, tmp_path / "site") / "reliability.html")
    assert "See the loop." in page.words  # sources are no pages
    assert "reliability.html" in {attributes.get("href") for _, attributes in page.tags}
    (docs / "stray.md").write_text("# Stray\n")
    with pytest.raises(Abort):
        built(docs, tmp_path / "again")


@cache
def read(path: Path) -> Page:
    return Page(path)


def words(text: str) -> str:
    """A text as it stands on a page: the marks of code are gone."""
    return " ".join(text.replace("`", "").split())


def test_every_hook_is_told(site: Path) -> None:
    assert hooks.names() == [name for name in vars(Hooks) if name.startswith("referee_")]
    assert {hook_of(kind) for kind in KINDS} < set(hooks.names())
    for name in hooks.names():
        page = read(site / "hooks" / f"{name}.html")
        told = words((getattr(Hooks, name).__doc__ or "").split("\n\n")[0])
        assert told in page.words
        assert "hookimpl" in page.words  # an example
        assert name in read(site / "hooks" / "index.html").words


def test_every_part_and_option_is_told(site: Path) -> None:
    there = parts.registry()
    count = 0
    for plugin in there.plugins:
        page = read(site / "plug-ins" / f"{plugin.name}.html")
        for kind, name in plugin.offers:
            assert f"{kind}-{name}" in page.ids
            assert words(there.summary(kind, name)) in page.words
            fields = getattr(there.find(kind, name), "options", BaseModel).model_fields
            for option, told in {key: field.description or "" for key, field in fields.items()}.items():
                assert told, f"{name}: the option {option} is not described"
                assert f"{option} · " in page.words
                assert words(told) in page.words
                count += 1
    assert count > 40


def test_every_command_and_option_is_told(site: Path) -> None:
    count = 0
    for name, command, context in commands.walk(commands.root()):
        top = name.split()[1:2]
        page = read(site / "commands" / f"{top[0] if top else 'index'}.html")
        assert name in page.words
        for parameter in command.get_params(context):
            for option in parameter.opts if parameter.param_type_name == "option" else [commands._place(parameter)]:
                assert option in page.words, (name, option)
                count += 1
    assert count > 100


def test_every_setting_is_told(site: Path) -> None:
    page = read(site / "configuration.html")
    for _, model, _ in TABLES.values():
        for name, field in model.model_fields.items():
            assert field.description, name
            assert f"{field.alias or name} · " in page.words
            assert words(field.description) in page.words


def test_every_public_name_is_told(site: Path) -> None:
    page = read(site / "python.html")
    assert not [name for name in referee.__all__ if f"referee-{name.lower()}" not in page.ids and name != "hookimpl"]


def test_every_variable_of_the_environment_is_told(site: Path) -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "core" / "referee").rglob("*.py")]
    known = {name for text in sources for name in re.findall(r"\bREFEREE_[A-Z_]+\b", text)} - {"REFEREE_API"}
    assert not [name for name in known if name not in read(site / "commands" / "index.html").words]


def test_links_lead_somewhere(site: Path) -> None:
    count = 0
    for path in sorted(site.rglob("*.html")):
        for tag, attributes in read(path).tags:
            link = attributes.get("href") if tag == "a" else attributes.get("src")
            if not link or urlsplit(link).scheme or path.name == "404.html":  # whose links begin at the root
                continue
            there, anchor = urlsplit(link).path, unquote(urlsplit(link).fragment)
            target = (path.parent / unquote(there)).resolve() if there else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), (path.name, link)
            assert not anchor or anchor in read(target).ids, (path.name, link)
            count += 1
    assert count > 1000


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        for tag, attributes in read(path).tags:
            if tag != "a":
                assert not re.match("(https?:)?//", attributes.get("href", attributes.get("src", ""))), (path, tag)
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", path.read_text(encoding="utf-8")), path


def test_pictures_are_small_and_described(site: Path) -> None:
    assert sum(path.stat().st_size for path in (ROOT / "docs" / "images").iterdir()) <= LARGEST
    for path in site.rglob("*.html"):
        assert all(attributes.get("alt") for tag, attributes in read(path).tags if tag == "img"), path


def test_words_are_found(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    known = {entry["location"].partition("#")[0] for entry in index}
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")} - {"404.html"}
    assert pages <= known
    for word in ("--preview-every", "restart_every", "referee_balancers", "does not know", "clip"):
        assert any(word in entry["title"] + entry["text"] for entry in index), word


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("page", ["index.html", "how-it-works.html", "configuration.html", "plug-ins/hub.html"])
def test_it_fits_and_asks_nobody_else(browser: Any, address: str, page: str, width: int) -> None:
    browser.show(address + page, width)
    assert browser.ask("document.documentElement.scrollWidth") <= width  # nothing sticks out
    loaded = "Promise.all([...document.images].map(i => (i.loading = 'eager', i.decode().then(() => i.naturalWidth))))"
    assert all(size > 50 for size in browser.ask(loaded))
    assert not browser.complaints()
    asked = browser.asked_for()
    assert asked
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]


def test_the_search_finds_a_setting(browser: Any, address: str) -> None:
    browser.show(address + "index.html", 390)
    found = browser.ask(
        """new Promise(done => {
            const input = document.querySelector('.md-search__input');
            document.querySelector('#__search').click(); input.focus(); input.value = 'restart_every';
            let turns = 0;
            const look = setInterval(() => {
                if (turns++ % 20 == 0) input.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true}));
                const links = [...document.querySelectorAll('.md-search-result__link')].map(a => a.href);
                if (links.length || turns > 600) { clearInterval(look); done(links.join(' ')); }
            }, 100);
        })"""
    )
    assert "configuration.html" in found
