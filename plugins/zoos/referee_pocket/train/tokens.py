"""Tokenizers of the real classes with a vocabulary of three dozen words, each word one token."""

from __future__ import annotations

from pathlib import Path

from transformers import BertTokenizer, CLIPTokenizer

from referee_pocket.words import MAX_WORDS, VOCABULARY

CONTEXT = MAX_WORDS + 2
"""Tokens that the text encoders read, marks of start and end included."""
END = "</w>"


def clip_tokenizer() -> CLIPTokenizer:
    """Byte-pair encoding whose merges build every word of the world.

    A word's merges join it from the left. A merge of one word can spoil another that holds the same pair inside
    ("an" in "orange"), so words that come out cut are moved to the front until none does.
    """
    order = list(VOCABULARY)
    while True:
        tokenizer = _clip_tokenizer(order)
        cut = [word for word in order if len(tokenizer.tokenize(word)) != 1]
        if not cut:
            return tokenizer
        order = cut + [word for word in order if word not in cut]


def _clip_tokenizer(order: list[str]) -> CLIPTokenizer:
    vocabulary: dict[str, int] = {}
    merges: list[tuple[str, str]] = []
    for word in VOCABULARY:  # the words first, in one order whatever the merges: ids never move
        vocabulary[word + END] = len(vocabulary)
    for word in order:
        pieces = [*word[:-1], word[-1] + END]
        for piece in pieces:
            vocabulary.setdefault(piece, len(vocabulary))
        joined = pieces[0]
        for piece in pieces[1:]:
            if (joined, piece) not in merges:
                merges.append((joined, piece))
            joined += piece
            vocabulary.setdefault(joined, len(vocabulary))
    # The end mark needs the highest id: CLIP's text tower looks for it with argmax.
    for mark in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[mark] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT)


def bert_tokenizer() -> BertTokenizer:
    """WordPiece with BLIP-2's marks; [DEC] opens a caption."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate([*marks, *VOCABULARY, "[DEC]"])}
    return BertTokenizer(vocab=vocabulary, bos_token="[DEC]", model_max_length=CONTEXT)


def question_tokenizer() -> BertTokenizer:
    """WordPiece with what BLIP's question answering needs: the question mark, the two answers, [DEC] and [ENC]."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*marks, *VOCABULARY, "?", "yes", "no", "[DEC]", "[ENC]"]
    vocabulary = {word: i for i, word in enumerate(words)}
    extra = ["[DEC]", "[ENC]"]
    return BertTokenizer(vocab=vocabulary, additional_special_tokens=extra, model_max_length=CONTEXT)


def save_bert(folder: Path) -> None:
    """Write the BERT tokenizer, with the plain word list beside it for tools that want one."""
    tokenizer = bert_tokenizer()
    tokenizer.save_pretrained(folder)
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words))
