"""Settings in layers: how they merge, how they are written, and what a wrong one is answered."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pydantic
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from referee.command.asked import settings_of
from referee.command.layer import flag_layer
from referee.errors import OptionError
from referee.folder.record import describe
from referee.hooks import Spec, ZooSpec
from referee.layers import Layer, merge, parse_set, preset, read_toml
from referee.options import validate
from referee.plugins import Registry
from referee.rules import Rules
from referee.schedules import constant, cosine, linear
from referee.settings import MAX_IMAGES, BalancerPart, Part, RefereePart, Settings, build
from referee.typed import parse_part, parse_value


def test_later_layers_win() -> None:
    settings = build([{"rules": {"steps": 50, "views": 3}}, {"rules": {"steps": 60}}, {"seeds": [4]}])
    assert (settings.rules.steps, settings.rules.views, settings.seeds) == (60, 3, (4,))
    assert build([]) == Settings()


def test_lists_are_replaced_and_tables_merged() -> None:
    base: Layer = {"referees": [{"name": "a"}, {"name": "b"}], "rules": {"lr": 1, "steps": 20}}
    assert merge(base, {"referees": [{"name": "c"}]}) == {"referees": [{"name": "c"}], "rules": {"lr": 1, "steps": 20}}
    assert merge(base, {"rules": {"lr": 2}})["rules"] == {"lr": 2, "steps": 20}
    assert base["rules"] == {"lr": 1, "steps": 20}  # layers are not touched


def test_a_part_of_another_name_starts_afresh() -> None:
    base: Layer = {"prior": {"name": "a", "options": {"cfg": 30, "steps": 2}}}
    same = merge(base, {"prior": {"name": "a", "options": {"cfg": 7}}})
    assert same["prior"]["options"] == {"cfg": 7, "steps": 2}
    assert merge(base, {"prior": {"options": {"cfg": 7}}})["prior"]["name"] == "a"
    assert merge(base, {"prior": {"name": "b"}})["prior"] == {"name": "b"}
    assert merge(base, {"prior": None})["prior"] is None


def test_building_does_not_share_with_its_layers() -> None:
    layer: Layer = {"rules": {"steps": 50}}
    build([layer, {"rules": {"views": 2}}])
    assert layer == {"rules": {"steps": 50}}


WRONG: list[tuple[Layer, str]] = [
    ({"rules": {"stepz": 1}}, r"there is no 'rules\.stepz'\. Did you mean 'steps'\?"),
    ({"rule": {}}, r"there is no 'rule'\. Did you mean 'rules'\?"),
    ({"qqqq": 1}, r"there is no 'qqqq'\. There are: augmentation, balancer, device, dtype"),
    ({"referees": [{"name": "a", "wieght": 1}]}, r"there is no 'referees\.0\.wieght'\. Did you mean 'weight'\?"),
    ({"prior": {"name": "a", "optoins": {}}}, r"there is no 'prior\.optoins'\. Did you mean 'options'\?"),
    ({"rules": {"steps": "many"}}, r"rules\.steps: Input should be a valid integer.* \(given: 'many'\)"),
    ({"rules": {"steps": 5}}, r"rules: tail \(10\) leaves the referees no step of 5"),
    ({"rules": {"lr": "cosine(1"}}, r"rules\.lr: Cannot read the schedule 'cosine\(1': expected ',' at character 9"),
    ({"rules": {"prior_lr": "x"}}, r"rules\.prior_lr: Cannot read the schedule"),
    ({"referees": [{"name": "a"}, {"name": "a"}]}, "two referees are called 'a': give each a label"),
    ({"referees": [{"name": "a"}, {"name": "x:a"}]}, "two referees are called 'a'"),
    ({"referees": [{"name": "a"}, {"name": "b", "label": "a"}]}, "two referees are called 'a'"),
    ({"referees": [{"name": "a", "label": "prior"}]}, "a referee is called 'prior'"),
    ({"referees": [{"name": "a", "weight": "linear(1, -2)"}]}, "the weight of 'a' falls to -2"),
    ({"referees": [{"weight": 1}]}, r"'referees\.0\.name' must be given: as listed by `referee plugins`"),
    ({"rules": {"prior_weight": 0}}, "nobody plays: name a referee, or give the prior a weight above 0"),
    ({"rules": {"prior_weight": 0}, "referees": [{"name": "a", "weight": 0}]}, "nobody plays"),
    ({"rules": {"weight_decay": float("inf")}}, r"rules\.weight_decay: Input should be a finite number"),
    ({"seeds": [1, 2, 1]}, "the seeds repeat"),
    ({"seeds": []}, "seeds: .*at least 1"),
    ({"seeds": list(range(MAX_IMAGES + 1))}, f"seeds: .*at most {MAX_IMAGES}"),
    ({"height": 63}, r"height: .*multiple of 8 \(given: 63\)"),
    ({"width": 0}, "width: .*greater than or equal to 8"),
    ({"height": 8192}, "height: .*less than or equal to 4096"),
    ({"dtype": "float8"}, "dtype: .*match pattern"),
    ({"prior": "sd"}, "prior: .*valid dictionary"),
]


@pytest.mark.parametrize(("layer", "text"), WRONG)
def test_what_is_wrong_is_named(layer: Layer, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        build([layer])


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(OptionError, match=r"rules\.stepz.*; .*'hight'\. Did you mean 'height'"):
        build([{"rules": {"stepz": 1}, "hight": 64}])


class Options(pydantic.BaseModel, extra="forbid", frozen=True):
    cfg: float = pydantic.Field(30, ge=0)
    model: str = ""


def test_a_parts_options_are_checked_with_its_name() -> None:
    assert validate(Options, {"cfg": 7}, "prior 'p'") == Options(cfg=7)
    with pytest.raises(OptionError, match=r"^prior 'p': there is no 'cgf'\. Did you mean 'cfg'\?$"):
        validate(Options, {"cgf": 7}, "prior 'p'")
    with pytest.raises(OptionError, match=r"^prior 'p': cfg: .*greater than or equal to 0 \(given: -1\)$"):
        validate(Options, {"cfg": -1}, "prior 'p'")


# --- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "layer"),
    [
        ("clip", {"name": "clip"}),
        ("clip:weight=0.5", {"name": "clip", "weight": 0.5}),
        ("clip:weight=cosine(1,0),size=3", {"name": "clip", "weight": "cosine(1,0)", "options": {"size": 3}}),
        ("clip:weight=linear(1, 0)", {"name": "clip", "weight": "linear(1, 0)"}),
        ("clip:label=7", {"name": "clip", "label": "7"}),
        ("clip:model=/m:x/y", {"name": "clip", "options": {"model": "/m:x/y"}}),
        ("clip:sizes=[1,2],on=true", {"name": "clip", "options": {"sizes": [1, 2], "on": True}}),
        ('clip:text="a b"', {"name": "clip", "options": {"text": "a b"}}),
        ("clip:from=0.2,until=.5,every=2", {"name": "clip", "from": 0.2, "until": ".5", "every": 2}),
        ("clip:prompt=a red circle", {"name": "clip", "prompt": "a red circle"}),
        ('clip:prompt="red, round",views=3', {"name": "clip", "prompt": "red, round", "views": 3}),
        ("clip:prompt=7,negative=true", {"name": "clip", "prompt": "7", "negative": True}),
        ("clip:aug=none", {"name": "clip", "aug": "none"}),
        ('clip:text="(",b=1', {"name": "clip", "options": {"text": "(", "b": 1}}),
        ("dist:clip", {"name": "dist:clip"}),
        ("dist:clip:weight=2,a=b", {"name": "dist:clip", "weight": 2, "options": {"a": "b"}}),
        ("clip:a=1,,b=2,", {"name": "clip", "options": {"a": 1, "b": 2}}),
        ("clip:a=b=c", {"name": "clip", "options": {"a": "b=c"}}),
    ],
)
def test_parts_as_people_write_them(text: str, layer: Layer) -> None:
    assert parse_part(text, RefereePart) == layer


def test_a_part_has_keys_of_its_own_kind() -> None:
    assert parse_part("a:weight=2,space=image", Part) == {"name": "a", "options": {"weight": 2, "space": "image"}}
    assert parse_part("a:weight=2,space=image", BalancerPart) == {
        "name": "a", "options": {"weight": 2}, "space": "image",
    }  # fmt: skip
    assert parse_part("a:space=image,weight=2", RefereePart) == {
        "name": "a",
        "options": {"space": "image"},
        "weight": 2,
    }


def test_an_augmentation_of_ones_own_by_name() -> None:
    def aug(value: object) -> object:
        return build([{"referees": [{"name": "a", "aug": value}]}]).referees[0].aug

    assert aug("none") == "none"
    assert aug("k") == aug({"name": "k"}) == Part(name="k")
    assert aug("k:p=0.5") == Part(name="k", options={"p": 0.5})
    with pytest.raises(OptionError, match="names no plug-in"):
        aug("")


def test_times_are_called_from_and_until() -> None:
    assert RefereePart(name="a", start=0.5).model_dump()["from"] == 0.5
    with pytest.raises(OptionError, match=r"there is no 'referees\.0\.form'. Did you mean 'from'"):
        build([{"referees": [{"name": "a", "form": 0.5}]}])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "'' names no plug-in: write NAME"),
        (":weight=1", "names no plug-in"),
        ("clip:", "names no plug-in"),
        (":clip", "names no plug-in"),
        ("clip:weight=1,size", "'size' in 'clip:weight=1,size' is not of the form key=value"),
        ("clip:=1", "'=1' in 'clip:=1' is not of the form"),
    ],
)
def test_parts_that_cannot_be_read(text: str, error: str) -> None:
    with pytest.raises(OptionError, match=error):
        parse_part(text, RefereePart)


@pytest.mark.parametrize(
    ("text", "layer"),
    [
        ("rules.steps=80", {"rules": {"steps": 80}}),
        ("rules.lr=cosine(1, 0.5)", {"rules": {"lr": "cosine(1, 0.5)"}}),
        ("seeds=[1, 2]", {"seeds": [1, 2]}),
        ("zoo=none", {"zoo": "none"}),
        ("device=", {"device": ""}),
        ("prior.options.template=a=b", {"prior": {"options": {"template": "a=b"}}}),
        (" a = 1", {"a": 1}),
    ],
)
def test_single_settings_as_people_write_them(text: str, layer: Layer) -> None:
    assert parse_set(text) == layer


@pytest.mark.parametrize("text", ["", "rules.steps", "=3", ".steps=3", "rules..steps=3", "rules.=3"])
def test_single_settings_that_cannot_be_read(text: str) -> None:
    with pytest.raises(OptionError, match=r"write a\.b=value, for example"):
        parse_set(text)


@pytest.mark.parametrize("text", ["1" * 5000, "[" * 3000, "1\n= =", "2024-99-99", '"open', "nan-ish"])
def test_a_value_that_is_no_toml_is_text(text: str) -> None:
    assert parse_value(text) == text


def structured() -> st.SearchStrategy[str]:
    """Text from what the parsers look for, so that more of it gets past the first check."""
    pieces = ["clip", "rules", "steps", "seeds", "weight", "label", "cosine(1,0)", "[", "]", ":", "=", ",", ".", " "]
    return st.lists(st.sampled_from([*pieces, "(", ")", "1", "-1", '"', "'", "{", "\n", "#", "1e400"])).map("".join)


@given(st.text() | structured())
def test_any_text_for_a_part_is_one_or_an_option_error(text: str) -> None:
    with contextlib.suppress(OptionError):
        layer = parse_part(text, RefereePart)
        assert layer["name"]
        build([{"referees": [layer]}])


@given(st.text() | structured())
def test_any_text_for_a_setting_is_one_or_an_option_error(text: str) -> None:
    with contextlib.suppress(OptionError):
        layer = parse_set(text)
        assert len(layer) == 1
        build([layer])


@given(st.text() | st.from_regex(r"\w{1,3}x\w{1,3}"))
def test_any_text_for_a_size_is_one_or_an_option_error(text: str) -> None:
    with contextlib.suppress(OptionError):
        assert set(flag_layer(size=text)) == {"rules", "height", "width"}


KEYS = st.sampled_from(["rules", "lr", "name", "referees", "seeds", "options", "zoo", "x"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
LAYERS = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner))


@given(LAYERS)
def test_any_layer_is_settings_or_an_option_error(layer: Any) -> None:
    for whole in ({"rules": layer}, {"referees": [layer]}, {"seeds": layer}, {"prior": layer}, {"zoo": layer}):
        with contextlib.suppress(OptionError):
            build([whole])


# --- flags ----------------------------------------------------------------------------------------------------------


def test_flags_that_say_nothing_change_nothing() -> None:
    assert build([{"seeds": [4], "rules": {"steps": 50}}, flag_layer()]) == Settings(seeds=(4,), rules=Rules(steps=50))


def test_flags() -> None:
    settings = build(
        [
            flag_layer(
                referee=["a:weight=2", "b"], prior="p:cfg=3", aug="k", steps=40, views=4, seed=7, n=3, size="64X96",
                device="cpu", dtype="bfloat16",
            )
        ]
    )  # fmt: skip
    assert settings == Settings(
        referees=(RefereePart(name="a", weight=constant(2)), RefereePart(name="b")),
        prior=Part(name="p", options={"cfg": 3}), augmentation=Part(name="k"), rules=Rules(steps=40, views=4),
        seeds=(7, 8, 9), height=64, width=96, device="cpu", dtype="bfloat16",
    )  # fmt: skip


def test_no_augmentation_takes_away_the_presets() -> None:
    assert build([{"augmentation": {"name": "k"}}, flag_layer(aug="none")]).augmentation is None
    assert build([{"augmentation": {"name": "k"}}, {"augmentation": "none"}]).augmentation is None  # as TOML can say it
    assert build([{"augmentation": {"name": "k"}}, flag_layer()]).augmentation == Part(name="k")


@pytest.mark.parametrize(("seed", "n", "seeds"), [(None, 3, (0, 1, 2)), (-1, 2, (-1, 0)), (9, None, (9,))])
def test_seeds_count_on(seed: int | None, n: int | None, seeds: tuple[int, ...]) -> None:
    assert build([flag_layer(seed=seed, n=n)]).seeds == seeds


@pytest.mark.parametrize(
    ("flags", "seeds"), [({"n": 2}, (7, 8)), ({"n": 2, "seed": 1}, (1, 2)), ({"seed": 1}, (1,)), ({}, (7, 9))]
)
def test_a_count_alone_counts_on_from_the_first_seed_below(flags: dict[str, int], seeds: tuple[int, ...]) -> None:
    below = [7, 9]
    assert build([{"seeds": below}, flag_layer(**flags, seeds=below)]).seeds == seeds
    assert build([flag_layer(n=2, seeds="x")]).seeds == (0, 1)


@pytest.mark.parametrize("n", [0, -1, MAX_IMAGES + 1])
def test_too_few_or_too_many_pictures_are_refused(n: int) -> None:
    with pytest.raises(OptionError, match=f"ask for 1 to {MAX_IMAGES} pictures"):
        flag_layer(n=n)


@pytest.mark.parametrize("size", ["", "64", "64x", "x64", "64x64x64", "-8x8", "8.0x8", "²x²", "9" * 6000 + "x8"])
def test_sizes_that_cannot_be_read(size: str) -> None:
    with pytest.raises(OptionError, match="write HEIGHTxWIDTH"):
        flag_layer(size=size)


# --- files ----------------------------------------------------------------------------------------------------------


def through_disk(settings: Settings, folder: Path) -> Settings:
    path = folder / "run.toml"
    path.write_text(tomli_w.dumps(describe("red", settings, None)), encoding="utf-8")
    return build([read_toml(path)])


FULL = Settings(
    zoo=None, height=24, width=40, seeds=(-3, 2**70), device="cpu", dtype="float16", prior=Part(name="p"),
    rules=Rules(
        steps=33, tail=4, update="sgd", lr=cosine(0.1 + 0.2, 1e-9), warm_up=3, prior_lr=linear(1 / 3, 0),
        weight_decay=1e-3, referee_weight=constant(2 / 3), prior_weight=0, restart_every=0,
    ),
    referees=(
        RefereePart(name="dist:a", weight=cosine(1, 1 / 7), options={"deep": {"list": [1, 2.5, "x"], "on": True}}),
        RefereePart(name="a", label="Würfel \"quoted\"\n"),
        RefereePart(name="b", aug="none", start=1 / 3, until=0.9, views=3, every=4, between="leave"),
        RefereePart(
            name="c", aug=Part(name="k", options={"p": 0.5}), prompt="a red circle", negative=True, margin=-1e-9
        ),
    ),
    augmentation=Part(name="k", options={"p": 1e-300}), balancer=BalancerPart(name="norm", space="image"),
)  # fmt: skip


@pytest.mark.parametrize("settings", [Settings(), FULL, Settings(zoo=None), Settings(zoo="other")])
def test_what_a_run_wrote_reads_back_exactly(settings: Settings, tmp_path: Path) -> None:
    assert through_disk(settings, tmp_path) == settings


@pytest.mark.parametrize("name", ["paper", "released"])
def test_presets_read_back_exactly(name: str, tmp_path: Path) -> None:
    settings = build([preset(name, Registry())])
    assert through_disk(settings, tmp_path) == settings


def test_no_zoo_can_be_said_in_text() -> None:
    assert build([{"zoo": "none"}]).zoo is None
    assert build([{}]).zoo == "pocket"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"rules = [", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        (b"a = 1\na = 2", "is not TOML"),
        (b"a = " + b"1" * 5000, "is not TOML"),
        (b"a = " + b"[" * 5000, "is not TOML"),
    ],
)
def test_files_that_cannot_be_read(content: bytes, text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(OptionError, match=text):
        read_toml(path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--config .*mine\.toml: No such file"):
        read_toml(tmp_path / "mine.toml")
    with pytest.raises(OptionError, match="is no plain file"):
        read_toml(tmp_path)


def test_presets_ship_and_come_with_zoos() -> None:
    class Zoo:
        from referee.hooks import hookimpl

        @hookimpl
        def referee_zoos(self, register: Any) -> None:
            over = 'preset = "zs"\nwidth = 16\n[[referees]]\nname = "b"'
            below = 'height = 8\nwidth = 8\n[[referees]]\nname = "a"'
            register(ZooSpec("z", "a zoo", "zs", presets={"zs": below, "over": over}))

    registry = Registry()
    assert registry.add(Zoo(), "z").status == "active"
    assert preset("zs", registry) == {"height": 8, "width": 8, "referees": [{"name": "a"}]}
    assert preset("over", registry) == {"height": 8, "width": 16, "referees": [{"name": "b"}]}
    assert preset("paper", registry)["rules"]["steps"] == 160
    with pytest.raises(OptionError, match=r"There is no preset 'papre'\. Did you mean 'paper'"):
        preset("papre", registry)


def test_every_setting_says_what_it_is() -> None:
    for model in (Settings, Rules, Part, RefereePart, BalancerPart):
        assert all(field.description for field in model.model_fields.values()), model
    assert Spec.__doc__


def test_a_config_file_may_stand_on_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('preset = "released"\nzoo = "none"\n[rules]\nsteps = 7\ntail = 0\n')
    asked = settings_of(Registry(), path, None, None, None)
    released = build([preset("released", Registry())])
    assert (asked.rules.steps, asked.rules.views) == (7, released.rules.views)
    assert (
        settings_of(Registry(), path, None, "paper", None).rules.views
        == build([preset("paper", Registry())]).rules.views
    )
    path.write_text('preset = "releazed"\nzoo = "none"\n')
    with pytest.raises(OptionError, match=r"no preset 'releazed'\. Did you mean 'released'"):
        settings_of(Registry(), path, None, None, None)
