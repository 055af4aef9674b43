"""Examples run as they stand, and the examples in docstrings say the truth."""

from __future__ import annotations

import doctest
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
MORE = {"aesthetic_score": ["--head", "{}/head.safetensors"], "black_box": ["--pairs", "2"], "sweep": ["--seeds", "1"]}
"""Further words for some scripts."""
NEEDS = {"no_letters": ("onnx2torch", "rapidocr_onnxruntime")}
"""What some scripts import that is no part of the package: `pip install --group examples`."""


def modules_with_examples() -> list[str]:
    """Import names of the plug-ins' modules that hold a doctest."""
    found = []
    for root in (ROOT / "plugins").iterdir():
        for path in root.glob("referee_*/**/*.py"):
            if ">>> " in path.read_text(encoding="utf-8"):
                found.append(".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"))
    return sorted(found)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_draws_its_picture(script: Path, tmp_path: Path) -> None:
    if lacking := [name for name in NEEDS.get(script.stem, ()) if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{', '.join(lacking)} not installed: pip install --group examples")
    out = tmp_path / "picture.png"
    more = [str(word).format(tmp_path) for word in MORE.get(script.stem, [])]
    save_file({"weight": torch.ones(1, 64), "bias": torch.zeros(1)}, tmp_path / "head.safetensors")
    done = subprocess.run(
        [sys.executable, script, "a red circle", "--steps", "2", "--views", "1", "--out", out, *more],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    with Image.open(out) as picture:
        assert picture.size == (64, 64)


def test_the_notebook_runs_and_its_results_show_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "examples" / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            exec(cell["source"].replace('"steps": 60, "tail": 4', '"steps": 2, "tail": 0, "views": 1'), names)
    assert names["result"]._repr_png_().startswith(b"\x89PNG")
    assert len(names["result"].history) == 2
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (64, 64)


@pytest.mark.parametrize("name", modules_with_examples())
def test_docstrings_say_the_truth(name: str) -> None:
    assert not doctest.testmod(importlib.import_module(name)).failed
