"""From names to objects: what is looked over before a factory is called, and what the factories are given."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel

from referee import balance
from referee.errors import OptionError, PluginError, PromptError, WeightsError
from referee.hooks import Checkpoint, Place, Spec, ZooFile, ZooSpec, hookimpl
from referee.judging import Judge
from referee.layers import Layer
from referee.parts import assemble, check, device_name, seats_of
from referee.plugins import Registry
from referee.prompt import Prompt
from referee.schedules import linear
from referee.seat import Seat
from referee.settings import build
from referee.testing import ToyAugmentation, ToyPrior, ToyReferee


class Options(BaseModel, extra="forbid", frozen=True):
    input_size: int = 8
    strength: float = 1.0


class Toys:
    """A plug-in of toys that notes which factories were called, and with what."""

    def __init__(self) -> None:
        self.made: list[tuple[str, Options, Place]] = []

    def maker(self, name: str, build: Callable[[Options], Any]) -> Callable[[Options, Place], Any]:
        def make(options: Options, place: Place) -> Any:
            self.made.append((name, options, place))
            return build(options)

        return make

    @hookimpl
    def referee_referees(self, register: Any) -> None:
        def refuse(options: Options) -> None:
            if options.input_size > 1000:
                raise OptionError("input_size: no model is that large")

        def needy(options: Options, place: Place) -> Any:
            import no_such_library_at_all  # noqa: F401

        register(Spec("toy", "", self.maker("toy", lambda o: ToyReferee(o.input_size)), Options, refuse))
        register(Spec("needy", "", needy))

    @hookimpl
    def referee_priors(self, register: Any) -> None:
        register(Spec("toy", "", self.maker("prior", lambda o: ToyPrior(o.strength)), Options))

    @hookimpl
    def referee_augmentations(self, register: Any) -> None:
        register(Spec("shade", "", lambda o, p: ToyAugmentation()))

    @hookimpl
    def referee_balancers(self, register: Any) -> None:
        register(Spec("mine", "", lambda o, p: still))

    @hookimpl
    def referee_zoos(self, register: Any) -> None:
        def words(prompt: str) -> None:
            if "grue" in prompt:
                raise PromptError("This zoo draws no grue.")

        options = {"toy": {"input_size": 4, "strength": 0.5}}
        files = (ZooFile("model.safetensors"),)
        small = Checkpoint("all", Path("."), options=options)
        empty = Checkpoint("all", Path("nowhere"), files, options, mend="Make it.")
        register(ZooSpec("small", "", "paper", lambda: [small], check_prompt=words))
        register(ZooSpec("empty", "", "paper", lambda: [empty], check_prompt=words))


def still(rows: Any, weights: Any, pull: Any) -> Any:
    return next(iter(rows.values())) * 0


def table(**changes: Any) -> tuple[Any, Registry, Toys]:
    toys, registry = Toys(), Registry()
    assert registry.add(toys, "toys").status == "active"
    base: Layer = {"zoo": None, "device": "cpu", "prior": {"name": "toy"}, "referees": [{"name": "toy"}]}
    return build([base, changes]), registry, toys


def test_names_become_objects() -> None:
    settings, registry, toys = table(
        referees=[
            {"name": "toy", "weight": "linear(1, 0)", "options": {"input_size": 6}},
            {"name": "(given):toy", "label": "second"},
        ],
        augmentation={"name": "shade"}, balancer={"name": "mine"}, height=16, width=24, dtype="bfloat16",
    )  # fmt: skip
    parts = assemble(check(settings, registry))
    assert [(seat.name, seat.referee.input_size) for seat in parts.seats] == [("toy", 6), ("second", 8)]
    assert parts.seats[0].weight == linear(1, 0)
    assert isinstance(parts.prior, ToyPrior)
    assert isinstance(parts.augmentation, ToyAugmentation)
    assert parts.balancer is still
    assert (parts.size, parts.device, parts.rules) == ((16, 24), "cpu", settings.rules)
    assert {place for _, _, place in toys.made} == {Place("cpu", "bfloat16")}


def test_a_place_at_the_table_is_passed_on() -> None:
    own = {"name": "shade"}
    settings, registry, _ = table(
        referees=[
            {"name": "toy", "from": 0.2, "until": 0.8, "views": 3, "aug": own, "prompt": " a  red ring"},
            {"name": "toy", "label": "b", "aug": "none", "negative": True, "margin": 0.5, "every": 2,
             "between": "leave"},
            {"name": "toy", "label": "c", "aug": "shade"},
            {"name": "toy", "label": "d"},
        ],
        balancer={"name": "mine", "space": "image"},
    )  # fmt: skip
    parts = assemble(check(settings, registry))
    a, b, c, d = parts.seats
    assert (a.start, a.until, a.views, a.prompt) == (0.2, 0.8, 3, Prompt("a red ring"))
    assert isinstance(a.augmentation, ToyAugmentation)
    assert (b.augmentation, b.negative, b.margin, b.every, b.between) == (None, True, 0.5, 2, "leave")
    assert isinstance(c.augmentation, ToyAugmentation)
    assert d == Seat("d", d.referee)
    assert (parts.space, parts.balancer) == ("image", still)


class Kin:
    """Referees of two families, and one that cannot read all prompts."""

    @hookimpl
    def referee_referees(self, register: Any) -> None:
        def grammar(prompt: str) -> None:
            if not prompt.startswith("a "):
                raise PromptError(f"'{prompt}' is not of the grammar.")

        for name, own in (("mild", ("x", "y")), ("kind", ("y",)), ("cold", ())):
            register(Spec(name, "", lambda o, p: ToyReferee(), families=own))
        register(Spec("picky", "", lambda o, p: ToyReferee(), check_prompt=grammar))


@pytest.mark.parametrize(
    ("players", "judge", "kin"),
    [
        (["mild", "cold"], "kind", ["mild"]), (["mild", "kind"], "mild", ["mild", "kind"]),
        (["cold"], "cold", ["cold"]), (["mild", "kind"], "cold", []), (["cold"], "mild", []), ([], "mild", []),
    ],
)  # fmt: skip
def test_a_judge_of_a_referees_family_is_warned_of(players: list[str], judge: str, kin: list[str]) -> None:
    settings, registry, _ = table(referees=[{"name": name} for name in players], judge={"name": judge, "label": "j"})
    assert registry.add(Kin(), "kin").status == "active"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = check(settings, registry)
    names = " and ".join(f"'{name}'" for name in kin)
    said = [str(each.message) for each in caught]
    assert [text.partition(":")[0] for text in said] == [f"The judge 'j' is of the same family as {names}"] * bool(kin)
    assert isinstance(assemble(plan).judge, Judge)


def test_a_judge_is_passed_on_and_loads_like_any_referee() -> None:
    said = {
        "name": "toy",
        "every": 3,
        "keep": "last",
        "prompt": " a  red ring",
        "pick": True,
        "options": {"input_size": 5},
    }
    settings, registry, _ = table(judge=said, zoo="small")
    with pytest.warns(UserWarning, match="same family"):
        judge = assemble(check(settings, registry)).judge
    assert judge == Judge("toy", judge.referee, 3, "last", None, Prompt("a red ring"), True)  # type: ignore[union-attr]
    assert judge is not None
    assert judge.referee.input_size == 5
    with pytest.raises(PromptError, match="no grue"):
        check(table(judge={**said, "prompt": "a grue"}, zoo="small")[0], registry)


def test_what_a_referee_cannot_judge_by_is_refused_before_it_is_made() -> None:
    for changes in ({"judge": {"name": "picky"}}, {"referees": [{"name": "picky"}]}):
        settings, registry, toys = table(**changes)
        assert registry.add(Kin(), "kin").status == "active"
        with pytest.raises(PromptError, match="'red' is not of the grammar"):
            check(settings, registry, Prompt("red"))
        check(settings, registry, Prompt("a red ring"))
        assert not toys.made
    settings, registry, _ = table(judge={"name": "picky", "prompt": "ring"})
    assert registry.add(Kin(), "kin").status == "active"
    with pytest.raises(PromptError, match="'ring' is not of the grammar"):
        check(settings, registry, Prompt("a red ring"))


def test_defaults() -> None:
    settings, registry, _ = table()
    parts = assemble(check(settings, registry))
    assert parts.balancer is balance.norm
    assert parts.space == "latent"
    assert parts.augmentation is None


def test_a_zoos_options_stand_below_ones_own() -> None:
    settings, registry, toys = table(zoo="small", referees=[{"name": "toy", "options": {"input_size": 6}}])
    assemble(check(settings, registry))
    assert {name: options for name, options, _ in toys.made} == {
        "prior": Options(input_size=4, strength=0.5),
        "toy": Options(input_size=6, strength=0.5),
    }


def test_seats_alone_need_no_prior() -> None:
    settings, registry, toys = table(prior=None)
    assert [seat.name for seat in seats_of(check(settings, registry))] == ["toy"]
    assert [name for name, _, _ in toys.made] == ["toy"]


REFUSED: dict[str, tuple[Layer, type[Exception], str]] = {
    "referee": ({"referees": [{"name": "nobody"}]}, PluginError, "There is no referee called 'nobody'"),
    "prior": ({"prior": {"name": "nobody"}}, PluginError, "There is no prior called 'nobody'"),
    "augmentation": ({"augmentation": {"name": "nobody"}}, PluginError, "no augmentation called"),
    "balancer": ({"balancer": {"name": "nobody"}}, PluginError, "no balancer called"),
    "zoo": ({"zoo": "nobody"}, PluginError, "There is no zoo called 'nobody'"),
    "option": (
        {"referees": [{"name": "toy", "options": {"input_sise": 3}}]},
        OptionError,
        "referee 'toy': there is no 'input_sise'. Did you mean 'input_size'",
    ),
    "option value": ({"prior": {"options": {"strength": "x"}}}, OptionError, "prior 'toy': strength: .*valid number"),
    "option check": ({"referees": [{"name": "toy", "options": {"input_size": 2000}}]}, OptionError, "that large"),
    "own augmentation": ({"referees": [{"name": "toy", "aug": "nobody"}]}, PluginError, "no augmentation called"),
    "own words": ({"referees": [{"name": "toy", "prompt": " "}]}, PromptError, "is empty"),
    "words": ({"zoo": "small"}, PromptError, "no grue"),
    "files": ({"zoo": "empty"}, PromptError, "no grue"),  # the cheaper look comes first
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_found_before_a_factory_is_called(case: str) -> None:
    layer, error, text = REFUSED[case]
    settings, registry, toys = table(**layer)
    with pytest.raises(error, match=text):
        check(settings, registry, Prompt("a grue"))
    assert toys.made == []


def test_a_text_among_the_options_is_held_to_the_zoos_words() -> None:
    class Says(BaseModel, extra="forbid", frozen=True):
        avoid: str = ""

    class Talker:
        @hookimpl
        def referee_augmentations(self, register: Any) -> None:
            register(Spec("talker", "", lambda o, p: ToyAugmentation(), Says, words=lambda o: [o.avoid]))

    for avoid in ("a grue", "mud"):
        layer = {"augmentation": {"name": "talker", "options": {"avoid": avoid}}}
        for zoo in ("small", None):
            settings, registry, _ = table(zoo=zoo, **layer)
            registry.add(Talker(), "talker")
            if zoo and "grue" in avoid:
                with pytest.raises(PromptError, match="no grue"):
                    check(settings, registry, Prompt("red"))
                with pytest.raises(PromptError, match="no grue"):
                    check(settings, registry)
            else:
                check(settings, registry, Prompt("red"))


def test_missing_files_are_found_before_a_factory_is_called() -> None:
    settings, registry, toys = table(zoo="empty")
    with pytest.raises(WeightsError, match=r"model.safetensors is missing in nowhere. Make it."):
        check(settings, registry, Prompt("red"))
    assert toys.made == []


def test_a_folder_of_ones_own_needs_no_zoos_files() -> None:
    own = {"input_size": 4, "strength": 0.5}
    layer = {"prior": {"name": "toy", "options": own}, "referees": [{"name": "toy", "options": own}]}
    settings, registry, _ = table(zoo="empty", **layer)
    check(settings, registry, Prompt("red"))
    half = {"prior": {"name": "toy", "options": own}, "referees": [{"name": "toy", "options": {"input_size": 4}}]}
    settings, registry, _ = table(zoo="empty", **half)
    with pytest.raises(WeightsError, match=r"model.safetensors is missing"):
        check(settings, registry, Prompt("red"))


@pytest.mark.parametrize(
    ("layer", "text"),
    [({"prior": None}, "No prior is named"), ({"device": "nowhere"}, "The device 'nowhere' cannot be used here")],
)
def test_what_only_assembly_can_see_is_still_seen_before_a_factory_is_called(layer: Layer, text: str) -> None:
    settings, registry, toys = table(**layer)
    plan = check(settings, registry, Prompt("red"))
    with pytest.raises(OptionError, match=text):
        assemble(plan)
    assert toys.made == []


def test_a_library_that_is_missing_is_named() -> None:
    settings, registry, _ = table(referees=[{"name": "needy"}])
    with pytest.raises(PluginError, match=r"'needy' needs no_such_library_at_all .*pip install no_such_library_at_all"):
        assemble(check(settings, registry))


def test_a_library_without_a_name_gets_no_pip_command() -> None:
    class Vague:
        @hookimpl
        def referee_referees(self, register: Any) -> None:
            def make(options: Any, place: Place) -> Any:
                raise ImportError("libthing.so.3 cannot be opened")

            register(Spec("vague", "", make))

    settings, registry, _ = table(referees=[{"name": "vague"}])
    assert registry.add(Vague(), "vague").status == "active"
    with pytest.raises(PluginError, match=r"'vague' needs a library .*: libthing\.so\.3 cannot be opened\.$"):
        assemble(check(settings, registry))


class Raising:
    """A plug-in whose factories raise, or make something else."""

    @hookimpl
    def referee_referees(self, register: Any) -> None:
        def fails(options: Any, place: Place) -> Any:
            raise KeyError("tokens")

        def refuses(options: Any, place: Place) -> Any:
            raise WeightsError("model.safetensors is cut short.")

        def stops(options: Any, place: Place) -> Any:
            raise KeyboardInterrupt

        register(Spec("fails", "", fails))
        register(Spec("refuses", "", refuses))
        register(Spec("stops", "", stops))
        register(Spec("other", "", lambda options, place: ToyPrior()))


def test_what_a_factory_raises_names_the_part_and_keeps_the_cause() -> None:
    settings, registry, _ = table(referees=[{"name": "fails"}])
    registry.add(Raising(), "raising")
    with pytest.raises(
        PluginError, match=r"'fails' could not be made: KeyError: 'tokens' \(test_parts\.py, line"
    ) as caught:
        assemble(check(settings, registry))
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(("name", "error"), [("refuses", WeightsError), ("stops", KeyboardInterrupt)])
def test_a_factorys_own_refusal_and_ctrl_c_pass_through(name: str, error: type[BaseException]) -> None:
    settings, registry, _ = table(referees=[{"name": name}])
    registry.add(Raising(), "raising")
    with pytest.raises(error):
        assemble(check(settings, registry))


def test_a_part_of_another_kind_is_refused() -> None:
    settings, registry, _ = table(referees=[{"name": "other"}])
    registry.add(Raising(), "raising")
    with pytest.raises(PluginError, match="'other' is offered as a referee and made a ToyPrior, which is none"):
        assemble(check(settings, registry))


def test_devices() -> None:
    assert device_name("cpu") == "cpu"
    assert torch.zeros(1, device=device_name("auto")).item() == 0
    with pytest.raises(OptionError, match="'warp9' cannot be used here"):
        device_name("warp9")
