"""Finding plug-ins: strangers' packages in a folder of their own, found as installed ones are; nothing half-loaded."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import referee.plugins
from referee.errors import PluginError
from referee.hooks import API_VERSION, ConverterSpec, Hooks, Spec, ZooSpec, hookimpl, hookspec
from referee.plugins import ENVIRONMENT, KINDS, TRACE, Registry, discover, hook_of

GOOD = """
from referee.hooks import Spec, ZooSpec, hookimpl

SEEN = []

@hookimpl
def referee_referees(register):
    register(Spec("{name}", "likes {name}", lambda options, place: None))

@hookimpl
def referee_step(step):
    SEEN.append(step)
"""

BROKEN: dict[str, tuple[str, str]] = {
    "import": ("import no_such_library_at_all", "ModuleNotFoundError: No module named 'no_such_library_at_all'"),
    "syntax": ("def (", "SyntaxError"),
    "exit": ("import sys; sys.exit('this needs Linux')", "SystemExit: this needs Linux"),
    "misspelt hook": (
        GOOD + "\n@hookimpl\ndef referee_refrees(register):\n    pass\n",
        "PluginValidationError: unknown hook 'referee_refrees'",
    ),
    "wrong argument": (
        GOOD + "\n@hookimpl\ndef referee_priors(registre):\n    pass\n",
        "PluginValidationError: Plugin .*registre",
    ),
    "wrong spec": (
        GOOD + "\n@hookimpl\ndef referee_zoos(register):\n    register(Spec('z', '', None))\n",
        r"TypeError: register\(\) takes a ZooSpec, not Spec",
    ),
    "wrong type": (
        GOOD + "\n@hookimpl\ndef referee_priors(register):\n    register('p')\n",
        r"TypeError: register\(\) takes a Spec, not str",
    ),
    "name": (
        GOOD.replace("{name}", "Wrong_Name"),
        "ValueError: 'Wrong_Name' is no name for a referee: use lower case, digits and dashes",
    ),
    "twice one name": (
        GOOD + "\n@hookimpl\ndef referee_priors(register):\n    [register(Spec('p', '', None)) for _ in range(2)]\n",
        "ValueError: it offers two priors called 'p'",
    ),
    "options": (
        GOOD + "\n@hookimpl\ndef referee_priors(register):\n    register(Spec('p', '', None, dict))\n",
        "TypeError: the options of 'p' must be a pydantic model, not <class 'dict'>",
    ),
    "newer hooks": (
        "REFEREE_API = 2\n" + GOOD,
        r"PluginError: it was written for version 2 of the hooks, and this referee has version 1; "
        "pip install --upgrade vlm-referee should mend it",
    ),
    "hooks' version": ('REFEREE_API = "1"\n' + GOOD, "PluginError: REFEREE_API must be a number like 1, not '1'"),
    "wrong converter": (
        GOOD + "\n@hookimpl\ndef referee_converters(register):\n    register(Spec('c', '', None))\n",
        r"TypeError: register\(\) takes a ConverterSpec, not Spec",
    ),
    "converter that raises": (
        GOOD + "\n@hookimpl\ndef referee_converters(register):\n    1 / 0\n",
        "ZeroDivisionError: division by zero",
    ),
    "hook that raises": (
        GOOD + "\n@hookimpl\ndef referee_priors(register):\n    1 / 0\n",
        "ZeroDivisionError: division by zero",
    ),
}

Install = Callable[..., list[EntryPoint]]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Lay a distribution down as pip does, and give back the entry points of all that were laid down."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))

    def lay(distribution: str, code: str, entry: str = "", version: str = "1.2") -> list[EntryPoint]:
        module = "stranger_" + distribution.replace("-", "_")
        entry = entry or distribution
        (tmp_path / f"{module}.py").write_text(code.replace("{name}", entry), encoding="utf-8")
        info = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[referee]\n{entry} = {module}\n")
        found = importlib.metadata.distributions(path=[str(tmp_path)])
        return [entry for dist in found for entry in dist.entry_points if entry.group == "referee"]

    yield lay
    for name in set(sys.modules) - before:
        if name.startswith("stranger_"):
            del sys.modules[name]


def statuses(registry: Registry) -> dict[str, tuple[str, str]]:
    return {plugin.name: (plugin.status, plugin.reason) for plugin in registry.plugins}


def hooked(registry: Registry) -> list[str]:
    """The keys of all plug-ins that hang on pluggy's manager."""
    return sorted(key for key, _ in registry._manager.list_name_plugin())


def test_a_strangers_package_is_found(install: Install) -> None:
    registry = discover(found=install("hello", GOOD), environment={})
    (plugin,) = registry.plugins
    assert (plugin.name, plugin.distribution, plugin.version, plugin.status) == ("hello", "hello", "1.2", "active")
    assert plugin.offers == [("referee", "hello")]
    assert registry.names("referee") == ["hello"]
    assert registry.summary("referee", "hello") == "likes hello"
    assert registry.summary("referee", "nobody") == ""
    assert registry.find("referee", "hello").name == "hello"
    assert registry.find("referee", "hello:hello").name == "hello"
    registry.hook.referee_step(step=3)
    assert sys.modules["stranger_hello"].SEEN == [3]


def test_installed_packages_are_found_without_being_told(install: Install) -> None:
    install("hello", GOOD)
    assert "hello" in statuses(discover(environment={}))


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_listed_and_harms_nobody(fault: str, install: Install) -> None:
    code, reason = BROKEN[fault]
    install("aaa", GOOD)
    install("bad", code)
    registry = discover(found=install("zzz", GOOD), environment={})
    found = statuses(registry)
    assert (found["aaa"], found["zzz"]) == (("active", ""), ("active", ""))
    assert found["bad"][0] == "failed"
    # Nothing of it stays, though all but the import faults had offered a good referee before the bad part was seen.
    assert hooked(registry) == ["aaa:aaa", "zzz:zzz"]
    assert registry.names("referee") == ["aaa", "zzz"]
    assert not [plugin.offers for plugin in registry.plugins if plugin.name == "bad" and plugin.offers]
    mend = "" if "pip install" in reason else ".*pip install --upgrade bad"
    with pytest.raises(PluginError, match=rf"'bad' \(bad 1\.2\) failed to load: {reason}{mend}") as caught:
        registry.find("referee", "bad")
    assert str(caught.value).count("pip install") == 1


def test_a_plugin_for_these_hooks_is_taken_and_one_for_older_ones_is_not(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("today", f"REFEREE_API = {API_VERSION}\n" + GOOD)
    found = install("silent", GOOD)
    assert {status for status, _ in statuses(discover(found=found, environment={})).values()} == {"active"}
    monkeypatch.setattr(referee.plugins, "API_VERSION", API_VERSION + 1)
    later = statuses(discover(found=found, environment={}))
    assert later["silent"] == ("active", "")
    assert (
        "for version 1 of the hooks, and this referee has version 2; pip install --upgrade today" in later["today"][1]
    )


def test_a_heavy_import_is_told_and_the_part_still_offered(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "stranger_heavy", raising=False)
    monkeypatch.setattr(referee.plugins, "HEAVY", frozenset({"wave"}))  # a library that nobody here has imported
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    found = install("heavy", "import wave\n" + GOOD)
    registry = discover(found=found, environment={})
    (plugin,) = registry.plugins
    reason = "slow: it imports wave whenever the command starts, not in its factory"
    assert (plugin.status, plugin.reason) == ("active", reason)
    assert registry.find("referee", "heavy").name == "heavy"


def test_options_that_cannot_be_pickled_are_told_and_the_part_still_offered(install: Install) -> None:
    code = GOOD + (
        "\nfrom pydantic import BaseModel\nclass Locked(BaseModel):\n    how: object = lambda: 1\n"
        "@hookimpl\ndef referee_priors(register):\n    register(Spec('p', '', lambda options, place: None, Locked))\n"
    )
    registry = discover(found=install("locked", code), environment={})
    status, reason = statuses(registry)["locked"]
    assert status == "active"
    assert reason.startswith("the options of prior 'p' cannot be pickled for another process: ")
    assert registry.names("prior") == ["p"]


def test_a_hook_that_gains_an_argument_breaks_no_plugin(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(Hooks):
        @hookspec
        def referee_step(self, step: Any, parts: Any) -> None:  # type: ignore[override]
            """Parts are new."""

    monkeypatch.setattr(referee.plugins, "Hooks", Later)
    newer = GOOD.replace("referee_step(step)", "referee_step(parts, step)").replace(
        "append(step)", "append((step, parts))"
    )
    install("newer", newer)
    registry = discover(found=install("older", GOOD), environment={})
    assert set(statuses(registry).values()) == {("active", "")}
    registry.hook.referee_step(step=3, parts="parts")
    assert sys.modules["stranger_older"].SEEN == [3]
    assert sys.modules["stranger_newer"].SEEN == [(3, "parts")]


def test_a_deprecated_hook_warns_once_and_names_the_plugin(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(Hooks):
        @hookspec(warn_on_impl=DeprecationWarning("referee_step is now called referee_steps."))
        def referee_step(self, step: Any) -> None:
            """Old."""

    monkeypatch.setattr(referee.plugins, "Hooks", Later)
    with pytest.warns(UserWarning, match="plug-in 'old'") as caught:
        registry = discover(found=install("old", GOOD), environment={})
    assert [str(warning.message) for warning in caught] == [
        "The plug-in 'old' (old): referee_step is now called referee_steps."
    ]
    assert statuses(registry) == {"old": ("active", "")}


@pytest.mark.parametrize(("value", "traced"), [("1", True), ("", False), ("0", False)])
def test_hook_calls_are_traced_when_asked(
    install: Install, capsys: pytest.CaptureFixture[str], value: str, traced: bool
) -> None:
    install("bad", BROKEN["hook that raises"][0])
    registry = discover(found=install("hello", GOOD), environment={TRACE: value})
    registry.hook.referee_step(step=1)
    said = capsys.readouterr().err.splitlines()
    if not traced:
        assert said == []
        return
    assert "referee: hook referee_referees calls hello:hello" in said
    assert "referee: hook referee_priors raised ZeroDivisionError('division by zero')" in said
    assert said[-1] == "referee: hook referee_step calls hello:hello"


def test_ctrl_c_while_loading_is_ctrl_c(install: Install) -> None:
    with pytest.raises(KeyboardInterrupt):
        discover(found=install("slow", "raise KeyboardInterrupt"), environment={})


def test_two_of_one_name_are_both_named_and_either_can_be_chosen(install: Install) -> None:
    install("alpha-clip", GOOD, entry="clip")
    registry = discover(found=install("beta-clip", GOOD.replace("likes", "loves"), entry="clip"), environment={})
    with pytest.raises(PluginError, match="Two plug-ins offer a referee called 'clip'") as caught:
        registry.find("referee", "clip")
    assert "'alpha-clip:clip'" in str(caught.value)
    assert "'beta-clip:clip'" in str(caught.value)
    assert registry.find("referee", "alpha-clip:clip").summary == "likes clip"
    assert registry.find("referee", "beta-clip:clip").summary == "loves clip"
    with pytest.raises(PluginError, match="There is no referee called 'gamma:clip'"):
        registry.find("referee", "gamma:clip")


def test_the_same_name_may_stand_for_parts_of_two_kinds() -> None:
    class Both:
        @hookimpl
        def referee_referees(self, register: Any) -> None:
            register(Spec("x", "a referee", lambda options, place: None))

        @hookimpl
        def referee_priors(self, register: Any) -> None:
            register(Spec("x", "a prior", lambda options, place: None))

    registry = Registry()
    registry.add(Both(), "both")
    assert [registry.find(kind, "x").summary for kind in ("referee", "prior")] == ["a referee", "a prior"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"enabled": False}, "by --no-plugins"),
        ({"block": ["hello"]}, "by -p no:hello"),
        ({"environment": {ENVIRONMENT: ""}}, f"by {ENVIRONMENT}="),
        ({"environment": {ENVIRONMENT: "other, more"}}, f"by {ENVIRONMENT}=other, more"),
    ],
)
def test_blocked_plugins_are_not_imported_and_say_why(arguments: Any, reason: str, install: Install) -> None:
    found = install("hello", "raise AssertionError('its code ran')")
    registry = discover(**{"found": found, "environment": {}, **arguments})
    assert statuses(registry) == {"hello": ("blocked", reason)}
    with pytest.raises(PluginError, match="The plug-in 'hello' is blocked: by "):
        registry.find("referee", "hello")


@pytest.mark.parametrize("allowed", ["hello", "other, hello", " hello ,"])
def test_the_allow_list_allows(allowed: str, install: Install) -> None:
    install("other2", GOOD)
    registry = discover(found=install("hello", GOOD), environment={ENVIRONMENT: allowed})
    assert {name: status for name, (status, _) in statuses(registry).items()} == {
        "hello": "active",
        "other2": "blocked",
    }


def test_blocking_one_leaves_the_others(install: Install) -> None:
    install("other", GOOD)
    registry = discover(found=install("hello", GOOD), environment={}, block=["other"])
    assert registry.names("referee") == ["hello"]


def test_an_unknown_name_gets_the_nearest_and_a_pip_command(install: Install) -> None:
    registry = discover(found=install("hello", GOOD), environment={})
    with pytest.raises(PluginError) as caught:
        registry.find("referee", "helo")
    assert str(caught.value) == (
        "There is no referee called 'helo'. Did you mean 'hello'? If it is a plug-in of its own: "
        "pip install referee-helo"
    )
    with pytest.raises(PluginError, match=r"There is no prior called 'hello'\. There are none\."):
        registry.find("prior", "hello")


def test_a_single_file_is_a_plugin(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(GOOD.replace("{name}", "mine"))
    registry = discover(enabled=False, found=[], files=[path])
    assert statuses(registry) == {"mine": ("active", "")}
    assert registry.find("referee", "mine").summary == "likes mine"
    assert registry.find("referee", f"{path}:mine").summary == "likes mine"


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_file_stops_at_once(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(BROKEN[fault][0].replace("{name}", "mine"))
    registry = Registry()
    with pytest.raises(PluginError, match=rf"--plugin .*mine\.py failed to load: {BROKEN[fault][1]}"):
        registry.add_file(path)
    assert hooked(registry) == []


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="there is no such file"):
        Registry().add_file(tmp_path / "nothing.py")
    with pytest.raises(PluginError, match="name too long"):
        Registry().add_file(tmp_path / ("a" * 300))
    (tmp_path / "data.bin").write_bytes(b"\0")
    with pytest.raises(PluginError, match="is not a Python file"):
        Registry().add_file(tmp_path / "data.bin")


def test_a_file_may_put_its_annotations_off(tmp_path: Path) -> None:
    """pydantic looks the types of such options up in the module, by its name."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from __future__ import annotations\nfrom pathlib import Path\nfrom pydantic import BaseModel\n"
        "from referee.hooks import Spec, hookimpl\nclass Options(BaseModel):\n    model: Path\n@hookimpl\n"
        "def referee_referees(register):\n    register(Spec('mine', '', lambda options, place: None, Options))\n"
    )
    registry = Registry()
    registry.add_file(path)
    assert registry.find("referee", "mine").options(model="here").model == Path("here")


def test_the_same_file_twice_leaves_the_first_whole(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(GOOD.replace("{name}", "mine"))
    registry = Registry()
    registry.add_file(path)
    with pytest.raises(PluginError, match="failed to load"):
        registry.add_file(path)
    assert hooked(registry) == [f"{path}:mine"]
    assert registry.find("referee", "mine").name == "mine"


def test_all_hooks_reach_their_kind() -> None:
    class All:
        pass

    def offer(kind: str) -> Callable[..., None]:
        def hook(register: Any) -> None:
            name = f"my-{kind}"
            specs = {"zoo": ZooSpec(name, "", "paper"), "converter": ConverterSpec(name, "", lambda o, f: None)}
            register(specs.get(kind, Spec(name, "", lambda o, p: None)))

        return hookimpl(hook)

    module = All()
    for kind in KINDS:
        setattr(module, hook_of(kind), offer(kind))
    registry = Registry()
    plugin = registry.add(module, "all")
    assert plugin.status == "active", plugin.reason
    assert plugin.offers == [(kind, f"my-{kind}") for kind in KINDS]
    for kind in KINDS:
        assert registry.names(kind) == [f"my-{kind}"]


def test_what_is_loaded_later_is_not_asked_again_for_what_came_before() -> None:
    calls: list[str] = []

    class Counting:
        def __init__(self, name: str) -> None:
            self.name = name

        @hookimpl
        def referee_referees(self, register: Any) -> None:
            calls.append(self.name)
            register(Spec(self.name, "", lambda o, p: None))

    registry = Registry()
    for name in ("a", "b", "c"):
        registry.add(Counting(name), name)
    assert calls == ["a", "b", "c"]
    assert registry.names("referee") == ["a", "b", "c"]
