"""Finding plug-ins: the only file that knows about entry points.

Built-ins come the way strangers come: through entry points of the group ``referee``. Each is loaded in a try of its
own, so a broken plug-in is listed with its reason and stops a run only if the run names it. (pluggy's own
``load_setuptools_entrypoints`` would abort on the first broken one, let a second entry point of the same name vanish,
and accept misspelt hooks.)

Blocking: ``block=("clip",)`` (``-p no:clip``), ``enabled=False`` (``--no-plugins``), or the environment's
``REFEREE_LOAD_PLUGINS`` (names to load, comma separated; empty for none). ``REFEREE_TRACE_PLUGINS=1`` says which hook
calls which plug-in.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

import pluggy
from pydantic import BaseModel

from referee.errors import PluginError, nearest
from referee.hooks import API_VERSION, HEAVY, PROJECT, ConverterSpec, Hooks, Spec, ZooSpec

Kind = Literal["referee", "prior", "augmentation", "balancer", "zoo", "converter", "bench"]
KINDS: tuple[Kind, ...] = ("referee", "prior", "augmentation", "balancer", "zoo", "converter", "bench")
SPECS: dict[Kind, Any] = {"zoo": ZooSpec, "converter": ConverterSpec}
"""What a hook registers, where it is not a `Spec`."""
ENVIRONMENT = "REFEREE_LOAD_PLUGINS"
TRACE = "REFEREE_TRACE_PLUGINS"
NAME = re.compile("[a-z0-9]+(-[a-z0-9]+)*")


def hook_of(kind: Kind) -> str:
    """The hook by which parts of a kind are offered.

    >>> hook_of("zoo"), hook_of("bench")
    ('referee_zoos', 'referee_benches')
    """
    return f"{PROJECT}_{plural(kind)}"


def plural(kind: Kind) -> str:
    """Several of a kind."""
    return f"{kind}es" if kind == "bench" else f"{kind}s"


@dataclass(slots=True)
class Plugin:
    """One plug-in as found, with what became of it. An active one, too, may have a reason to be looked at."""

    name: str
    distribution: str
    version: str
    status: Literal["active", "blocked", "failed"]
    reason: str = ""
    offers: list[tuple[Kind, str]] = field(default_factory=list)

    @property
    def mend(self) -> str:
        """What to type for one that failed to load; "" if the reason says it, as it does of other hooks."""
        return "" if "pip install" in self.reason else f"Try: pip install --upgrade {self.distribution}"


class Registry:
    """All plug-ins of this environment, and the parts that they offer, by kind and name."""

    def __init__(self) -> None:
        self.plugins: list[Plugin] = []
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(Hooks)
        self._offers: dict[Kind, dict[str, list[tuple[Plugin, Any]]]] = {kind: {} for kind in KINDS}

    def add(self, module: object, name: str, distribution: str = "", version: str = "") -> Plugin:
        """Register a module (or any object) with hook implementations; failures are recorded, not raised."""
        return self._load(lambda: module, Plugin(name, distribution or "(given)", version, "active"))

    def add_file(self, path: str | Path) -> Plugin:
        """Register a single Python file as a plug-in; its code runs.

        Raises:
            PluginError: there is no such file, or it failed.
        """
        path = Path(path)
        try:
            there = path.is_file()
        except OSError as error:  # a name too long, a folder that may not be looked into
            raise PluginError(f"--plugin {path}: {error.strerror or error}.") from error
        if not there:
            raise PluginError(f"--plugin {path}: there is no such file.")

        def load() -> object:
            spec = importlib.util.spec_from_file_location(f"referee_file_{path.stem}", path)
            if spec is None or spec.loader is None:
                raise ImportError(f"{path} is not a Python file")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # where pydantic looks up the types of its options
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[spec.name]
                raise
            return module

        plugin = self._load(load, Plugin(path.stem, str(path), "", "active"))
        if plugin.status == "failed":
            raise PluginError(f"--plugin {path} failed to load: {plugin.reason}")
        return plugin

    def _load(self, load: Callable[[], object], plugin: Plugin) -> Plugin:
        self.plugins.append(plugin)
        key = f"{plugin.distribution}:{plugin.name}"
        module: object = None
        before = set(sys.modules)
        try:
            module = load()
            _check_api(module, plugin)
            # What a plug-in hangs on the manager is taken off again if any part of it is wrong: no half plug-ins.
            self._register(module, key, plugin)
            self._manager.check_pending()
            offers = [(kind, spec) for kind in KINDS for spec in self._collect(kind, module)]
        except (Exception, SystemExit) as error:  # a stranger's import may raise anything
            if module is not None and self._manager.get_plugin(key) is module:  # and not a namesake's that is whole
                self._manager.unregister(name=key)
            plugin.status, plugin.reason = "failed", " ".join(f"{type(error).__name__}: {error}".split())  # on one line
            return plugin
        if heavy := sorted(HEAVY & (set(sys.modules) - before)):
            plugin.reason = f"slow: it imports {', '.join(heavy)} whenever the command starts, not in its factory"
        elif fault := _locked(offers):
            plugin.reason = fault
        for kind, spec in offers:
            plugin.offers.append((kind, spec.name))
            self._offers[kind].setdefault(spec.name, []).append((plugin, spec))
        return plugin

    def _register(self, module: object, key: str, plugin: Plugin) -> None:
        """As pluggy does, but what it says of a deprecated hook names the plug-in."""
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            self._manager.register(module, name=key)
        for warning in said:
            warnings.warn(f"The plug-in '{plugin.name}' ({plugin.distribution}): {warning.message}", stacklevel=2)

    def _collect(self, kind: Kind, module: object) -> list[Any]:
        specs: list[Any] = []
        wanted = SPECS.get(kind, Spec)

        def register(spec: Any) -> None:
            if not isinstance(spec, wanted):
                raise TypeError(f"register() takes a {wanted.__name__}, not {type(spec).__name__}")
            if not isinstance(spec.name, str) or not NAME.fullmatch(spec.name):
                raise ValueError(f"{spec.name!r} is no name for a {kind}: use lower case, digits and dashes")
            if spec.name in (other.name for other in specs):
                raise ValueError(f"it offers two {plural(kind)} called '{spec.name}'")
            options = getattr(spec, "options", BaseModel)
            if not (isinstance(options, type) and issubclass(options, BaseModel)):
                raise TypeError(f"the options of '{spec.name}' must be a pydantic model, not {options!r}")
            specs.append(spec)

        hook = getattr(self._manager.hook, hook_of(kind))
        others = [p for p in self._manager.get_plugins() if p is not module]
        self._manager.subset_hook_caller(hook.name, others)(register=register)
        return specs

    @property
    def hook(self) -> Any:
        """pluggy's caller, for the observing hooks."""
        return self._manager.hook

    def names(self, kind: Kind) -> list[str]:
        """The names that parts of this kind can be asked for by."""
        return sorted(self._offers[kind])

    def offered(self, kind: Kind, name: str) -> list[tuple[Plugin, Any]]:
        """Who offers a part of this name, each with its spec: more than one if two share a name."""
        return list(self._offers[kind].get(name, ()))

    def summary(self, kind: Kind, name: str) -> str:
        """Half a line on a part; of the first, if two share a name."""
        offers = self.offered(kind, name)
        return str(offers[0][1].summary) if offers else ""

    def find(self, kind: Kind, name: str) -> Any:
        """The spec of a part by name; ``distribution:name`` chooses between two of one name.

        Raises:
            PluginError: unknown (with the nearest names), ambiguous (with both distributions), blocked, or failed
                to load (with the reason and the pip command that may mend it).
        """
        distribution, _, short = name.rpartition(":")
        found = [
            (plugin, spec) for plugin, spec in self.offered(kind, short) if distribution in ("", plugin.distribution)
        ]
        if len(found) == 1:
            return found[0][1]
        if found:
            choices = " or ".join(f"'{plugin.distribution}:{short}'" for plugin, _ in found)
            raise PluginError(f"Two plug-ins offer a {kind} called '{short}': say {choices}.")
        for plugin in self.plugins:
            if plugin.name == short and plugin.status == "failed":
                why = f"{plugin.reason}. {plugin.mend}".strip()
                raise PluginError(
                    f"The plug-in '{short}' ({plugin.distribution} {plugin.version}) failed to load: {why}"
                )
            if plugin.name == short and plugin.status == "blocked":
                raise PluginError(f"The plug-in '{short}' is blocked: {plugin.reason}.")
        if distribution and self.offered(kind, distribution):
            raise PluginError(
                f"'{name}': what follows the colon of the {kind} '{distribution}' are options, key=value. "
                f"`referee plugins show {distribution}` lists them."
            )
        raise PluginError(
            f"There is no {kind} called '{name}'. {nearest(short, self.names(kind))} "
            f"If it is a plug-in of its own: pip install referee-{short}"
        )


def _check_api(module: object, plugin: Plugin) -> None:
    """Refuse a module that was written for hooks of another version; the reason has the mend."""
    wanted = getattr(module, "REFEREE_API", API_VERSION)
    if not isinstance(wanted, int) or wanted < 1:
        raise PluginError(f"REFEREE_API must be a number like {API_VERSION}, not {wanted!r}")
    if wanted != API_VERSION:
        mend = "vlm-referee" if wanted > API_VERSION else plugin.distribution
        raise PluginError(
            f"it was written for version {wanted} of the hooks, and this referee has version {API_VERSION}; "
            f"pip install --upgrade {mend} should mend it"
        )


def _locked(offers: Iterable[tuple[Kind, Any]]) -> str:
    """What of the options could not be sent to another process; "" if all can. A single file's cannot be tried."""
    for kind, spec in offers:
        model = getattr(spec, "options", BaseModel)
        if model.__module__ not in sys.modules:
            continue
        try:
            pickle.dumps((model, [field.default for field in model.model_fields.values()]))
        except Exception as error:
            return f"the options of {kind} '{spec.name}' cannot be pickled for another process: {error}"
    return ""


def _say_calls(manager: pluggy.PluginManager) -> None:
    """Each hook call on stderr: whom it reaches, and what they raise."""

    def before(name: str, implementations: Any, arguments: Any) -> None:
        reached = ", ".join(implementation.plugin_name for implementation in implementations)
        print(f"referee: hook {name} calls {reached or 'nobody'}", file=sys.stderr)

    def after(outcome: Any, name: str, implementations: Any, arguments: Any) -> None:
        if outcome.exception is not None:
            print(f"referee: hook {name} raised {outcome.exception!r}", file=sys.stderr)

    manager.add_hookcall_monitoring(before, after)


def discover(
    *,
    enabled: bool = True,
    block: Iterable[str] = (),
    files: Iterable[str | Path] = (),
    environment: Mapping[str, str] = os.environ,
    found: Iterable[EntryPoint] | None = None,
) -> Registry:
    """A registry of all installed plug-ins, less the blocked ones, plus single files.

    Args:
        enabled: False loads nothing that is installed (``--no-plugins``).
        block: entry-point names that are not loaded (``-p no:NAME``).
        files: Python files that are plug-ins (``--plugin FILE``).
        environment: where ``REFEREE_LOAD_PLUGINS`` and ``REFEREE_TRACE_PLUGINS`` are looked up.
        found: the entry points; by default those of this Python environment.
    """
    registry = Registry()
    if environment.get(TRACE, "0") not in ("", "0"):
        _say_calls(registry._manager)
    allowed = environment.get(ENVIRONMENT)
    allow = None if allowed is None else {name.strip() for name in allowed.split(",")}
    blocked = set(block)
    for entry in sorted(entry_points(group=PROJECT) if found is None else found, key=lambda e: e.name):
        distribution = entry.dist.name if entry.dist else "(unknown)"
        version = entry.dist.version if entry.dist else ""
        plugin = Plugin(entry.name, distribution, version, "blocked")
        if not enabled:
            plugin.reason = "by --no-plugins"
        elif entry.name in blocked:
            plugin.reason = f"by -p no:{entry.name}"
        elif allow is not None and entry.name not in allow:
            plugin.reason = f"by {ENVIRONMENT}={allowed}"
        if plugin.reason:
            registry.plugins.append(plugin)
        else:
            plugin.status = "active"
            registry._load(entry.load, plugin)
    for path in files:
        registry.add_file(path)
    return registry
