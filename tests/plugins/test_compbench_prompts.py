"""What the two benches read: the official prompt files, phrases from three sources, pictures' names; what is refused.

The official files are read from ``$REFEREE_TEST_DATA``, else from ``shared/data`` beside the repository; none of them
is part of it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from referee.errors import OptionError
from referee.hooks import Place
from referee_compbench import CompBenchOptions, GenEvalOptions, check_compbench, check_geneval
from referee_compbench.compbench import CompBench
from referee_compbench.geneval_bench import GenEval
from referee_compbench.names import file_name, listing, read_name, share
from referee_compbench.options import SUITES, folder_of
from referee_compbench.phrases import NO_PHRASES, by_spacy, by_template, reader, spacy_is_here
from referee_compbench.prompts import read_lines, read_tasks
from referee_compbench.spatial import relation_in

SIBLING = Path(__file__).parents[3] / "shared" / "data"
DATA = Path(os.environ.get("REFEREE_TEST_DATA", SIBLING)) / "t2i_compbench"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no T2I-CompBench files: set REFEREE_TEST_DATA")
NONE = {"vqa": "", "detector": "", "clip": "", "vlm": ""}


def official(**options: Any) -> CompBench:
    return CompBench(CompBenchOptions(path=DATA, **{"parser": "template", **options}), Place())


def lines(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


# --- T2I-CompBench's files -----------------------------------------------------------------------------------


@needs_data
def test_the_official_files() -> None:
    bench = official()
    counts = Counter(item.suite for item in bench.items())
    assert counts == dict.fromkeys(SUITES, 300)
    for suite in SUITES:
        mine = [item for item in bench.items() if item.suite == suite]
        assert [item.index for item in mine] == list(range(300))
        assert len({item.prompt for item in mine}) == 300
        assert not any(set("_/\r\n") & set(item.prompt) for item in mine)
    relations = Counter(relation_in(item.prompt) for item in bench.items() if item.suite == "spatial")
    assert relations == {
        "on side of": 37, "next to": 24, "near": 24, "on the left of": 51, "on the right of": 56,
        "on the bottom of": 52, "on the top of": 56,
    }  # fmt: skip
    json.dumps([dict(item.data) for item in bench.items()])


@needs_data
def test_the_official_routes() -> None:
    complex_ = [item for item in official(suites="complex").items() if item.suite == "complex"]
    assert Counter(item.data["route"] for item in complex_) == {"spatial": 58, "action": 212, "both": 30}
    placed = [relation_in(item.prompt) for item in complex_ if item.data["route"] != "action"]
    assert placed.count("on top of") == 33
    assert placed.count(None) == 1


@needs_data
def test_the_colour_prompts_of_before_september_2025() -> None:
    """They repeat some prompts: their pictures are shared out by their numbers."""
    old = official(suites="color", colors=DATA / "history" / "color_val_before_2025-09-03.txt")
    prompts = [item.prompt for item in old.items()]
    assert len(prompts) == 300
    assert len(set(prompts)) == 295


@needs_data
def test_templates_find_what_lies_where_on_the_spatial_prompts() -> None:
    people = {"girl", "boy", "man", "woman"}
    for item in official(suites="spatial").items():
        first, *_, last = (word for word in item.prompt.split() if word not in ("a", "an"))
        assert item.data["objects"] == ["person" if word in people else word for word in (first, last)]
        assert item.data["by"] == "templates"


@needs_data
def test_templates_find_two_things_wherever_complex_has_a_place() -> None:
    for item in official(suites="complex").items():
        if item.data["route"] != "action" and relation_in(item.prompt):
            assert len(item.data["objects"]) == 2


@needs_data
def test_templates_split_attribute_prompts_at_their_and() -> None:
    for suite in ("color", "shape", "texture"):
        simple = [i for i in official(suites=suite).items() if re.fullmatch(r"an? \w+ \w+ and an? \w+ \w+", i.prompt)]
        assert len(simple) > 50
        assert all(item.data["phrases"] == item.prompt.split(" and ") for item in simple)


@needs_data
def test_some_suites_and_some_prompts() -> None:
    bench = official(suites=["shape", "complex"], prompts=3)
    assert [(item.suite, item.index) for item in bench.items()] == [
        (s, i) for s in ("shape", "complex") for i in range(3)
    ]
    assert official(suites="shape+complex", prompts=3).items() == bench.items()


def test_files_are_read_whatever_their_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "color_val.txt"
    path.write_bytes(b"a green bench\r\n\r\n  a blue bowl \na red hat")
    assert read_lines(path) == ["a green bench", "a blue bowl", "a red hat"]
    items = CompBench(CompBenchOptions(path=tmp_path, suites="color", parser="template"), Place()).items()
    assert [item.data["phrases"] for item in items] == [["a green bench"], ["a blue bowl"], ["a red hat"]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no prompts"), (b"\n \r\n", "has no prompts"), (b"\xff\xfe\x00", "is no text"),
        (b'{"tag": "colors"}', "line 1, is no prompt"), (b"a dog\na cat/a cow", "line 2, is no prompt"),
        (b"a dog_000000.png", "line 1, is no prompt"), (b"a dog\na \x00 cat", "line 2, is no prompt"),
        (b"dog " * 300, "line 1, is no prompt"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "shape_val.txt").write_bytes(content)
    with pytest.raises(OptionError, match=said) as refused:
        check_compbench(CompBenchOptions(path=tmp_path, suites="shape", **{**NONE, "clip": "hf-hub:a/b"}))
    assert "examples/dataset" in str(refused.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"has no shape_val\.txt"):
        CompBench(CompBenchOptions(path=tmp_path, suites="shape"), Place())
    with pytest.raises(OptionError, match="is no folder"):
        CompBench(CompBenchOptions(path=tmp_path / "nowhere", suites="shape"), Place())
    lines(tmp_path, complex_val="A dog.")
    with pytest.raises(OptionError, match=r"has no complex_val_spatial\.txt"):
        CompBench(CompBenchOptions(path=tmp_path, suites="complex"), Place())


# --- phrases ----------------------------------------------------------------------------------------------------


def test_data_goes_before_everything(tmp_path: Path) -> None:
    said = {
        "made by": "spaCy 3.8.7, en_core_web_sm 3.8.0",
        "prompts": {
            "a dog near a hat": {"phrases": ["a dog", "a hat"], "objects": ["dog", "man"], "plain": "a dog near a hat"},
            "a red dog near a cup": {"phrases": ["a red dog", "a cup"]},
            "a fog": {"phrases": [], "objects": [], "plain": "a fog"},
        },
    }
    (tmp_path / "phrases.json").write_text(json.dumps(said))
    read = reader(tmp_path / "phrases.json", "template")
    whole = read("a dog near a hat", True)
    assert (whole.phrases, whole.objects) == (("a dog", "a hat"), ("dog", "person"))
    assert whole.source == "data: spaCy 3.8.7, en_core_web_sm 3.8.0"
    part = read("a red dog near a cup", True)  # what is not said is made out
    assert (part.phrases, part.objects, part.plain) == (("a red dog", "a cup"), ("dog", "cup"), "a dog near a cup")
    assert read("a fog", True).objects is None
    assert read("a blue cat", False).source == "templates"  # a prompt that it does not know


def test_the_table_says_where_the_phrases_come_from(tmp_path: Path) -> None:
    lines(tmp_path, color_val="a red dog\na blue cat\n")
    (tmp_path / "p.json").write_text(
        json.dumps({"made by": "hand", "prompts": {"a red dog": {"phrases": ["a red dog"]}}})
    )
    options = CompBenchOptions(path=tmp_path, suites="color", phrases=tmp_path / "p.json", parser="template")
    bench = CompBench(options, Place())
    assert bench.columns["blip-vqa"].title == "BLIP-VQA (phrases by data: hand + templates)"
    assert [item.data["by"] for item in bench.items()] == ["data: hand", "templates"]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("[]", "Input should be an object"), ("{", "Invalid JSON"), ('{"prompts": {"a": {"phrases": []}}}', "made by"),
        ('{"made by": "x", "prompts": {"a": {"phrases": "b"}}}', "prompts -> a -> phrases"),
        ('{"made by": "x", "prompts": {"a": {"phrases": [], "objects": ["b"]}}}', "objects"),
        ('{"made by": "x", "prompts": {"a": {"phrases": [], "colour": 1}}}', "colour"),
    ],
)  # fmt: skip
def test_data_of_another_form_is_refused(tmp_path: Path, content: str, place: str) -> None:
    path = tmp_path / "phrases.json"
    path.write_text(content)
    with pytest.raises(OptionError, match="Its form is") as refused:
        reader(path, "template")
    assert place in str(refused.value)
    with pytest.raises(OptionError, match="cannot be read"):
        reader(tmp_path / "none.json", "template")


def test_templates_on_complex_prompts() -> None:
    reading = by_template("The rough brown burlap sack lay next to the smooth white satin ribbon.", True)
    assert reading.phrases == ("the rough brown burlap sack", "the smooth white satin ribbon")
    assert reading.objects == ("burlap sack", "satin ribbon")
    assert reading.plain == "The burlap sack lay next to the satin ribbon."
    assert by_template("The black phone was resting on the brown charger.", True).objects is None


def test_repeats_stay_for_they_count_twice() -> None:
    assert by_template("a red dog and a red dog", False).phrases == ("a red dog", "a red dog")


def fake_spacy(monkeypatch: pytest.MonkeyPatch, tokens: list[tuple[str, str]], chunks: list[str]) -> None:
    """spaCy's English model cannot be had from the package index, so this stands in for what it says of a prompt: what
    is made of its words is tested."""
    document = SimpleNamespace(
        noun_chunks=[SimpleNamespace(text=text) for text in chunks],
        tokens=[SimpleNamespace(text=text, pos_=kind) for text, kind in tokens],
    )

    class Document:
        noun_chunks = document.noun_chunks

        def __iter__(self) -> Any:
            return iter(document.tokens)

    spacy = ModuleType("spacy")
    spacy.__spec__ = ModuleSpec("spacy", None)
    spacy.util = SimpleNamespace(is_package=lambda name: name == "en_core_web_sm")  # type: ignore[attr-defined]
    spacy.load = lambda name: lambda text: Document()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    from referee_compbench import phrases

    phrases._spacy.cache_clear()


def tagged(text: str) -> list[tuple[str, str]]:
    """``the/DET dog/NOUN``"""
    return [(word, kind) for word, _, kind in (piece.rpartition("/") for piece in text.split())]


def test_spacys_chunks_less_four(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: only those very four are left out; "the top" stays, and so do determiners and capitals."""
    chunks = ["A girl", "the top", "top", "the side", "the left", "the right", "a frog"]
    fake_spacy(monkeypatch, tagged("A/DET girl/NOUN on/ADP the/DET top/NOUN of/ADP a/DET frog/NOUN"), chunks)
    assert spacy_is_here()
    reading = reader(None, "auto")("A girl on the top of a frog", False)
    assert reading.phrases == ("A girl", "the top", "a frog")
    assert reading.objects == ("person", "frog")  # the first and the last noun
    assert reading.source.startswith("spaCy")
    assert len(NO_PHRASES) == 4


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        (
            "The/DET red/ADJ hat/NOUN was/AUX on/ADP top/NOUN of/ADP the/DET coat/NOUN rack/NOUN ./PUNCT",
            ("hat", "coat"),
        ),
        ("The/DET cat/NOUN is/AUX on/ADP the/DET left/NOUN of/ADP the/DET boy/NOUN ./PUNCT", ("cat", "person")),
        ("The/DET cat/NOUN sat/VERB next/ADJ to/ADP the/DET Rex/PROPN ./PUNCT", ("cat", "Rex")),
        ("The/DET cat/NOUN sat/VERB next/ADJ to/ADP the/DET Rex/PROPN", None),  # a name that ends the prompt is lost
        ("The/DET cat/NOUN was/AUX on/ADP the/DET top/NOUN of/ADP the/DET mat/NOUN", None),  # not among the words
        ("A/DET cat/NOUN near/ADP a/DET mat/NOUN near/ADP a/DET dog/NOUN", None),  # four nouns are not two
        ("It/PRON is/AUX near/ADP a/DET mat/NOUN", None),
    ],
)
def test_spacys_nouns_about_a_preposition(
    monkeypatch: pytest.MonkeyPatch, text: str, objects: tuple[str, str] | None
) -> None:
    fake_spacy(monkeypatch, tagged(text), [])
    assert by_spacy("whatever", True).objects == objects


def test_spacys_adjectives_go(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_spacy(monkeypatch, tagged("The/DET red/ADJ hat/NOUN fell/VERB ./PUNCT"), [])
    assert by_spacy("The red hat fell.", True).plain == "The hat fell ."


def test_spacy_is_asked_for_and_not_there(tmp_path: Path) -> None:
    lines(tmp_path, color_val="a red dog")
    with pytest.raises(OptionError, match="parser=spacy needs spaCy"):
        check_compbench(CompBenchOptions(path=tmp_path, suites="color", parser="spacy", **{**NONE, "vqa": "x/y"}))


# --- GenEval's file ---------------------------------------------------------------------------------------------

TASKS = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
    {"tag": "counting", "include": [{"class": "clock", "count": 2}], "exclude": [{"class": "clock", "count": 3}],
     "prompt": "a photo of two clocks"},
    {"tag": "position", "include": [{"class": "cow", "count": 1},
     {"class": "dog", "count": 1, "position": ["left of", 0]}], "prompt": "a photo of a dog left of a cow"},
    {"tag": "counting", "include": [{"class": "cow", "count": 2}], "exclude": [{"class": "cow", "count": 3}],
     "prompt": "a photo of two cows"},
]  # fmt: skip


def write_tasks(path: Path, tasks: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(task) for task in tasks) + "\n\n")
    return path


def test_genevals_prompts_are_told_apart_by_task(tmp_path: Path) -> None:
    path = write_tasks(tmp_path / "tasks.jsonl", TASKS)
    bench = GenEval(GenEvalOptions(path=path), Place())
    assert [(item.suite, item.index, item.data["line"]) for item in bench.items()] == [
        ("single_object", 0, 0), ("counting", 0, 1), ("position", 0, 2), ("counting", 1, 3),
    ]  # fmt: skip
    assert [item.data["task"] for item in bench.items()][2]["include"][1]["position"] == ["left of", 0]
    assert len(GenEval(GenEvalOptions(path=path, prompts=1), Place()).items()) == 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a photo of a dog", "line 2, is no prompt of GenEval: Invalid JSON"),
        ({"prompt": "a dog"}, "line 2, is no prompt of GenEval: tag: Field required"),
        ({**TASKS[0], "include": []}, "include: Tuple should have at least 1 item"),
        ({**TASKS[0], "include": [{"class": "dog", "count": 1, "color": "mauve"}]}, "'mauve' is none of its colours"),
        ({**TASKS[0], "prompt": " \n"}, "line 2, is no prompt: The prompt is empty"),
    ],
)
def test_a_prompt_of_another_form_is_refused(tmp_path: Path, line: Any, said: str) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(TASKS[0]) + "\n" + (line if isinstance(line, str) else json.dumps(line)))
    with pytest.raises(OptionError, match="evaluation_metadata") as refused:
        check_geneval(GenEvalOptions(path=path, detector="", vlm="a/b"))
    assert said in str(refused.value)


def test_no_prompts_at_all(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot be read"):
        read_tasks(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(OptionError, match="has no prompts"):
        read_tasks(tmp_path / "empty.jsonl")


# --- picture names ----------------------------------------------------------------------------------------------


def test_names_there_and_back() -> None:
    assert file_name("a green bench and a blue bowl", 2999) == "a green bench and a blue bowl_002999.png"
    assert read_name(file_name("A dog runs. Fast.", 7)) == ("A dog runs. Fast.", 7)
    assert read_name("a dog_seed3_000007.PNG") == ("a dog", 7)  # up to the first, and after the last
    for name in ("a dog.png", "_000001.png", "a dog_x.png", "a dog_000001.jpg", "a dog_000001.png.txt"):
        assert read_name(name) is None


@pytest.mark.parametrize("place", ["", "samples", "color", "color/samples"])
def test_a_folder_of_the_benchmarks_naming(tmp_path: Path, place: str) -> None:
    lines(tmp_path, color_val="a red dog\na blue cat\na red dog\n")
    home = tmp_path / "pictures" / place
    home.mkdir(parents=True)
    names = [file_name("a red dog", n) for n in (0, 1, 4, 5)] + [file_name("a blue cat", n) for n in (10, 9)]
    for name in [*names, "readme.png"]:
        (home / name).touch()
    bench = CompBench(CompBenchOptions(path=tmp_path, suites="color", parser="template"), Place())
    listed = [list(bench.files(tmp_path / "pictures", item)) for item in bench.items()]
    assert [[number for number, _ in files] for files in listed] == [[0, 1], [9, 10], [4, 5]]
    assert [[path.name for _, path in files] for files in listed] == [
        ["a red dog_000000.png", "a red dog_000001.png"],  # the first of two
        ["a blue cat_000009.png", "a blue cat_000010.png"],
        ["a red dog_000004.png", "a red dog_000005.png"],
    ]
    assert listing(tmp_path / "nowhere", "color") == {}


def test_pictures_of_a_prompt_that_stands_twice_are_shared_out() -> None:
    paths = [Path(f"a_{n:06d}.png") for n in range(5)]
    assert [*share(paths, 0, 2), *share(paths, 1, 2)] == paths
    assert share(paths, 0, 1) == paths


def test_a_folder_of_genevals_naming(tmp_path: Path) -> None:
    bench = GenEval(GenEvalOptions(path=write_tasks(tmp_path / "tasks.jsonl", TASKS)), Place())
    samples = tmp_path / "out" / "00003" / "samples"
    samples.mkdir(parents=True)
    for name in ("00001.png", "00000.png", "grid.png"):
        (samples / name).touch()
    assert [list(bench.files(tmp_path / "out", item)) for item in bench.items()] == [
        [], [], [], [(0, samples / "00000.png"), (1, samples / "00001.png")],
    ]  # fmt: skip
    (samples / "00000.png").unlink()
    assert list(bench.files(tmp_path / "out", bench.items()[3])) == [(1, samples / "00001.png")]


# --- options ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"suites": "colour"}, {"suites": ""}, {"suites": "numeracy"}, {"vqa_size": 481}, {"confidence": 1}, {"most": 0},
     {"question": "Is it so?"}, {"prompts": -1}, {"colour": "red"}],
)  # fmt: skip
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CompBenchOptions.model_validate({"path": ".", **options})


def test_nothing_to_measure_with(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="all left out"):
        check_compbench(CompBenchOptions(path=tmp_path, **NONE))
    with pytest.raises(OptionError, match="both left out"):
        check_geneval(GenEvalOptions(path=tmp_path, detector="", vlm=""))
    with pytest.raises(OptionError, match="tells colours by CLIP"):
        check_geneval(GenEvalOptions(path=tmp_path, clip=""))


def test_a_model_that_was_never_fetched_says_how_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(Exception, match="hf download google/owlv2-base-patch16-ensemble"):
        folder_of("google/owlv2-base-patch16-ensemble", "detector")
    with pytest.raises(Exception, match=r"There is no folder .*nowhere"):
        folder_of(str(tmp_path / "nowhere"), "detector")


def test_openais_clip_needs_its_own_activation(tmp_path: Path) -> None:
    """Trap: open_clip's plain ViT-B-32 takes OpenAI's weights, and computes something else with them."""
    lines(tmp_path, non_spatial_val="A dog runs.")
    wrong = CompBenchOptions(path=tmp_path, suites="non_spatial", **{**NONE, "clip": "ViT-B-32:openai"})
    with pytest.raises(OptionError, match="clip=ViT-B-32-quickgelu:openai"):
        check_compbench(wrong)
    check_compbench(wrong.model_copy(update={"clip": "ViT-B-32-quickgelu:openai"}))
    check_compbench(wrong.model_copy(update={"clip": "ViT-B-32:laion2b_s34b_b79k"}))
