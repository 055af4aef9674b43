"""Checkpoint files are told whole from broken before anything loads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from referee.errors import WeightsError
from referee.weights import check_folder, check_safetensors

MEND = "Fetch it again."
WHOLE = save({"a": torch.arange(6.0), "b": torch.ones(2, 2)}, metadata={"format": "pt"})


def broken(content: bytes, folder: Path) -> str:
    """The message, less the file's name, that a file of this content is refused with; empty if it is not."""
    path = folder / "model.safetensors"
    path.write_bytes(content)
    before, after = f"{path} is not a whole safetensors file: ", f". {MEND}"
    try:
        check_safetensors(path, mend=MEND)
    except WeightsError as error:
        found = str(error).removeprefix(before).removesuffix(after)
        return found if str(error) == before + found + after else f"no such message: {error}"
    return ""


def test_a_whole_file_passes(tmp_path: Path) -> None:
    assert broken(WHOLE, tmp_path) == ""


@pytest.mark.parametrize("length", [*range(20), len(WHOLE) - 1, len(WHOLE) // 2])
def test_a_cut_file_is_refused(length: int, tmp_path: Path) -> None:
    assert broken(WHOLE[:length], tmp_path)


def test_the_message_counts_the_bytes(tmp_path: Path) -> None:
    assert broken(WHOLE[:-5], tmp_path) == f"it has {len(WHOLE) - 5} bytes where its header promises {len(WHOLE)}"
    assert broken(WHOLE + b"?", tmp_path) == f"it has {len(WHOLE) + 1} bytes where its header promises {len(WHOLE)}"


def header(content: object) -> bytes:
    text = json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 a zip file, as torch.save writes them" * 4,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
        b"<!DOCTYPE html><html>Please log in</html>",
        b"\0" * 64,
        b"\xff" * 64,
        header([]),
        header("text"),
        header({"a": 3}),
        header({"a": {}}),
        header({"a": {"data_offsets": [0]}}),
        header({"a": {"data_offsets": "ab"}}),
        header({"a": {"data_offsets": [0, None]}}),
        (20_000).to_bytes(8, "little") + b"[" * 20_000,
    ],
)
def test_what_is_no_safetensors_file_is_refused(content: bytes, tmp_path: Path) -> None:
    assert "no such message" not in (broken(content, tmp_path) or "no such message")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(bit=st.integers(0, 8 * len(WHOLE) - 1))
def test_a_flipped_bit_is_refused_or_harmless_to_the_length(bit: int, tmp_path: Path) -> None:
    content = bytearray(WHOLE)
    content[bit // 8] ^= 1 << bit % 8
    found = broken(bytes(content), tmp_path)  # nothing but WeightsError comes out
    if bit < 64:  # the length of the header is then another
        assert found


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        check_safetensors(tmp_path / "nothing.safetensors", mend=MEND)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"There is no folder .*zoo\. Fetch it again\."):
        check_folder(tmp_path / "zoo", [], mend=MEND)
    with pytest.raises(WeightsError, match=r"name too long\. Fetch it again\."):
        check_folder(tmp_path / ("a" * 300), [], mend=MEND)
    (tmp_path / "config.json").write_text("{}")
    check_folder(tmp_path, ["config.json"], mend=MEND)
    with pytest.raises(WeightsError, match=r"model\.safetensors is missing\. Fetch it again\."):
        check_folder(tmp_path, ["config.json", "model.safetensors"], mend=MEND)
    (tmp_path / "model.safetensors").write_bytes(WHOLE)
    check_folder(tmp_path, ["config.json", "model.safetensors"], mend=MEND)
    (tmp_path / "model.safetensors").write_bytes(WHOLE[:-1])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        check_folder(tmp_path, ["config.json", "model.safetensors"], mend=MEND)
