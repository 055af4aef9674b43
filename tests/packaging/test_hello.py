"""A stranger's plug-in: installed by pip, found by name, played, and no harm to others when it breaks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
HELLO = ROOT / "examples" / "referee-hello"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy: what pip builds leaves nothing in the checkout."""
    return shutil.copytree(HELLO, tmp_path / "hello", ignore=shutil.ignore_patterns("__pycache__", ".*"))


@pytest.fixture
def environment(fresh: Callable[..., Any], source: Path) -> Any:
    made = fresh(editable=True)
    assert "hello" not in made.plugins()
    made.install(source)
    return made


def test_is_listed_with_its_distribution(environment: Any) -> None:
    row = environment.plugins()["hello"]
    assert (row["distribution"], row["version"], row["status"]) == ("referee-hello", "0.1.0", "active")
    (offer,) = row["offers"]
    assert (offer["kind"], offer["name"], offer["summary"]) == ("referee", "hello", "likes a colour")
    assert set(offer["options"]) == {"colour", "share"}


def test_passes_its_own_test(environment: Any, source: Path) -> None:
    done = environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=source)
    assert done.returncode == 0, done.stdout + done.stderr


def test_plays_by_name(environment: Any, tmp_path: Path) -> None:
    done = environment.run(
        "-m", "referee", "generate", "a red circle", "--referee", "blip2", "--referee", "hello:colour=red,weight=0.5",
        "--steps", "3", "--views", "2", "--set", "rules.tail=1", "--device", "cpu", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    with Image.open(tmp_path / "out" / "picture-0.png") as picture:
        assert picture.size == (64, 64)
        assert "hello" in picture.text["settings"]  # type: ignore[attr-defined]
    assert '"hello"' in (tmp_path / "out" / "metrics.jsonl").read_text(encoding="utf-8")


def test_breaks_without_harm_to_others(environment: Any, tmp_path: Path) -> None:
    code = "import referee_hello; print(referee_hello.__file__)"
    module = Path(environment.run("-c", code).stdout.strip())
    assert module.is_relative_to(environment.folder)
    shutil.rmtree(module.parent)

    found = environment.plugins()
    assert found["hello"]["status"] == "failed"
    assert "No module named 'referee_hello'" in found["hello"]["reason"]
    assert {row["status"] for name, row in found.items() if name != "hello"} == {"active"}

    asked = environment.run("-m", "referee", "generate", "a red circle", "-r", "hello", "--out", tmp_path / "out")
    assert asked.returncode == 2
    assert "pip install --upgrade referee-hello" in asked.stderr
    assert not (tmp_path / "out").exists()


def test_a_broken_plugin_does_not_stop_a_run_without_it(environment: Any, tmp_path: Path) -> None:
    code = "import referee_hello; print(referee_hello.__file__)"
    Path(environment.run("-c", code).stdout.strip()).write_text("raise RuntimeError('broken')\n", encoding="utf-8")
    done = environment.run(
        "-m", "referee", "generate", "a red circle", "-r", "clip", "--steps", "2", "--views", "1",
        "--set", "rules.tail=0", "--device", "cpu", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "picture-0.png").is_file()
