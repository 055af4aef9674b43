"""Records are joined where their settings agree, and refused, with the difference, where not; a stranger's, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from referee.bench.about import About, Maker, differences
from referee.bench.contract import Column
from referee.bench.records import Evidence, read
from referee.errors import RunError

Change = Callable[[dict[str, Any]], object]
MAKER = Maker(draw={"name": "invert"}, settings={"rules": {"steps": 4}})


def folder(home: Path, *rows: dict[str, Any], about: dict[str, Any] | None = None, shard: str = "0-of-1") -> Path:
    """A bench's folder, written by hand."""
    home.mkdir(exist_ok=True)
    plain = About(bench="b", columns={"right": Column("right", True)}, suites={"s": 3}, methods={"m": MAKER})
    (home / f"about-{shard}.json").write_text(json.dumps({**plain.model_dump(mode="json"), **(about or {})}))
    (home / f"records-{shard}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return home


def row(index: int = 0, **changes: Any) -> dict[str, Any]:
    plain = {
        "method": "m", "digest": MAKER.digest, "suite": "s", "index": index, "item": "i", "prompt": "p", "seed": 1,
        "scores": {"right": 1.0}, "picture": "pictures/x.png",
    }  # fmt: skip
    return plain | changes


def test_runs_are_joined_and_what_both_have_counts_once(tmp_path: Path) -> None:
    one = folder(tmp_path / "one", row(0), row(1, scores={"right": 0.0}))
    two = folder(tmp_path / "two", row(1), row(2), about={"suites": {"s": 9, "t": 1}, "seeds": 2})
    found = read([one, two])
    assert [(r.index, r.scores["right"]) for r in found.records] == [(0, 1), (1, 0), (2, 1)]
    assert (found.about.suites, found.about.seeds) == ({"s": 9, "t": 1}, 2)
    assert found.pictures["m", "s", 2, 1] == two / "pictures" / "x.png"


def test_shards_of_a_folder_may_have_methods_of_their_own(tmp_path: Path) -> None:
    other = Maker(draw={"name": "sample"})
    folder(tmp_path, row(0), shard="0-of-2")
    more = {"methods": {"o": other.model_dump(mode="json")}}
    folder(tmp_path, row(1, method="o", digest=other.digest), about=more, shard="1-of-2")
    assert list(read([tmp_path]).about.methods) == ["m", "o"]


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"bench": "c"}, 'bench: "b" and "c"'),
        ({"options": {"views": 3}}, "options.views: nothing and 3"),
        ({"weights": {"judge": "ab"}}, 'weights.judge: nothing and "ab"'),
        ({"columns": {"right": {"title": "true", "proportion": True}}}, 'columns.right.title: "right" and "true"'),
        (
            {"methods": {"m": {"draw": {"name": "invert"}, "settings": {"rules": {"steps": 5}}}}},
            "the methods 'm' are not the same: settings.rules.steps: 4 and 5",
        ),
    ],
)
def test_what_differs_is_not_joined(tmp_path: Path, about: dict[str, Any], says: str) -> None:
    one, two = folder(tmp_path / "one", row(0)), folder(tmp_path / "two", about=about)
    with pytest.raises(RunError, match="cannot be joined") as raised:
        read([one, two])
    assert says in str(raised.value)
    assert str(one) in str(raised.value)
    assert str(two) in str(raised.value)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (row(0, prompt="q", item="j", seed=2), "s 0 is 'p' in one and 'q' in the other."),
        (row(0, item="j", seed=2), "with other data for the scorer"),
        (row(0, digest="0", method="o"), "'o', of which no about-"),
        (row(0, digest="0"), "with other settings"),
    ],
)
def test_records_that_contradict_each_other_are_not_joined(tmp_path: Path, other: dict[str, Any], says: str) -> None:
    with pytest.raises(RunError, match=says):
        read([folder(tmp_path / "one", row(0)), folder(tmp_path / "two", other)])


def test_scores_of_two_pictures_are_not_joined(tmp_path: Path) -> None:
    about = {"methods": {"m": {"draw": {"name": "images"}}}}
    one, two = (folder(tmp_path / name, row(0, digest=name), about=about) for name in ("one", "two"))
    with pytest.raises(RunError, match="scored of two different pictures"):
        read([one, two])


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (row(0, picture="../../etc/passwd"), "it must lie in the folder"),
        (row(0, picture="/etc/passwd"), "it must lie in the folder"),
        (row(0, scores={"right": float("nan")}), "scores.right"),
        (row(0, scores={"right": "much"}), "scores.right"),
        (row(-1), "index"),
        (row(0, method="../m"), "method"),
        ({"method": "m"}, "'digest' must be given"),
    ],
)
def test_a_strangers_record_is_checked(tmp_path: Path, bad: dict[str, Any], says: str) -> None:
    with pytest.raises(RunError, match="line 2") as raised:
        read([folder(tmp_path, row(0), bad)])
    assert says in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"bench": "b"}', b"[" * 100_000, b"\xff"])
def test_a_strangers_about_is_checked(tmp_path: Path, content: bytes) -> None:
    folder(tmp_path, row(0))
    (tmp_path / "about-0-of-1.json").write_bytes(content)
    with pytest.raises(RunError, match=r"about-0-of-1\.json"):
        read([tmp_path])


def test_links_are_not_followed(tmp_path: Path) -> None:
    folder(tmp_path / "real", row(0))
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "about-0-of-1.json").symlink_to(tmp_path / "real" / "about-0-of-1.json")
    with pytest.raises(RunError, match="no plain file"):
        read([tmp_path / "fake"])


def test_a_folder_of_something_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No bench wrote in"):
        read([tmp_path])
    with pytest.raises(RunError, match="nothing to read"):
        read([])


def test_differences_reach_into_lists() -> None:
    assert differences({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}, 4]}) == ["a.1.b: 2 and 3", "a.2: nothing and 4"]
    assert differences({"a": {}}, {"a": {}}) == []


def test_some_methods_alone(tmp_path: Path) -> None:
    more = {"m": MAKER.model_dump(mode="json"), "o": {"draw": {"name": "images"}}}
    found = read([folder(tmp_path, row(0), row(0, method="o", digest="x"), about={"methods": more})])
    only: Evidence = found.only(["o"])
    assert (list(only.about.methods), [r.method for r in only.records]) == (["o"], ["o"])
