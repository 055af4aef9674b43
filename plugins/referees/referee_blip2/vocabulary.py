"""BERT's tokenizer from its word pieces, with LAVIS' mark that opens a caption: [DEC], the last id.

LAVIS takes bert-base-uncased and adds [DEC] as its bos token: 30522 word pieces and one.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import BertTokenizer

from referee.errors import WeightsError

MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
HUB = "google-bert/bert-base-uncased"


class NoTokenizer:
    """Stands for the tokenizer where only sizes are asked for: every text is as long as texts may be.

    Args:
        rows: word embeddings; the last is of [DEC].
    """

    bos_token, unk_token_id, model_max_length = "[DEC]", 0, 1 << 30

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def convert_tokens_to_ids(self, _: str) -> int:
        """The last."""
        return self.rows - 1

    def __call__(self, text: str, *, max_length: int, **_: Any) -> Any:
        """Ids of no meaning, (1, max_length)."""
        ends = torch.full((1, max_length, 2), len(text))
        return SimpleNamespace(input_ids=torch.ones(1, max_length, dtype=torch.long), offset_mapping=ends)


def read_vocabulary(path: Path | None) -> list[str]:
    """The word pieces of a ``vocab.txt``, one a line; without a path that of bert-base-uncased, from the hub.

    Raises:
        WeightsError: the file is no such list, or the hub is not reachable and nothing is cached.
    """
    path = path or _download()
    try:
        with path.open(encoding="utf-8") as file:  # lines end in \n alone: some word pieces are odd characters
            pieces = [line.rstrip("\n") for line in file]
    except (OSError, ValueError) as error:
        raise WeightsError(f"--vocab {path} cannot be read: {error}.") from error
    missing = [mark for mark in MARKS if mark not in pieces]
    if missing or "[DEC]" in pieces or len(set(pieces)) != len(pieces):
        why = f"it lacks {', '.join(missing)}" if missing else "a line is there twice, or [DEC] is"
        raise WeightsError(f"--vocab {path} is not BERT's vocab.txt, a word piece a line: {why}.")
    return pieces


def _download() -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(HUB, "vocab.txt"))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"The word pieces of {HUB} are neither here nor to be had ({type(error).__name__}): say --vocab vocab.txt, "
            f"or fetch them where there is a network: hf download {HUB} vocab.txt"
        ) from error


def tokenizer_of(pieces: list[str], rows: int, positions: int) -> Any:
    """The tokenizer for word embeddings of that many rows.

    Raises:
        WeightsError: the embeddings are of another vocabulary.
    """
    if len(pieces) + 1 != rows:
        raise WeightsError(
            f"The vocabulary has {len(pieces)} word pieces and [DEC], the checkpoint has {rows} word embeddings: "
            "give the vocab.txt it was trained with by --vocab."
        )
    numbers = {piece: i for i, piece in enumerate([*pieces, "[DEC]"])}
    return BertTokenizer(vocab=numbers, bos_token="[DEC]", model_max_length=positions)
