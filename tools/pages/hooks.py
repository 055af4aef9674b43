"""A page for each hook: its arguments, what is registered, what the part must keep, and a whole example."""

from __future__ import annotations

import inspect
import re

from pages.prose import fenced, plain, prose
from pages.source import definition
from referee import hooks
from referee.command.scaffold import USAGE, project
from referee.hooks import Hooks, Spec, ZooSpec
from referee.plugins import KINDS, SPECS, hook_of

PROTOCOLS = {
    "referee": "Referee", "prior": "Prior", "augmentation": "Augmentation", "balancer": "Balancer", "bench": "Bench",
}  # fmt: skip
MORE = {
    "referee": ["Viewer"], "prior": ["Sampler", "FewStep"], "balancer": ["Remembering"],
    "bench": ["Choosing", "Column", "Item", "Named", "Naming", "Seeded"],
}  # fmt: skip
"""What a part may keep besides."""


def names() -> list[str]:
    """All hooks, as the specification has them."""
    return [name for name, hook in vars(Hooks).items() if hasattr(hook, f"{hooks.PROJECT}_spec")]


def pages() -> dict[str, str]:
    """Their pages, and an index."""
    found = {name: _page(name) for name in names()}
    rows = [f"- [`{name}`]({name}.md): {plain(_first(name))}" for name in names()]
    index = f"""# Hooks

A plug-in is a module that implements some of these hooks, found by an entry point of the group `{hooks.PROJECT}`.
Every hook takes keyword arguments; an implementation names only those that it uses.

{chr(10).join(rows)}

## The version of the hooks

`referee.hooks.API_VERSION` is {hooks.API_VERSION}. {prose(_said("API_VERSION"))}
"""
    return {"index": index} | found


def _first(name: str) -> str:
    return inspect.cleandoc(getattr(Hooks, name).__doc__).split("\n\n")[0]


def _said(name: str) -> str:
    """What stands below a constant of `referee.hooks`."""
    found = re.search(rf'^{name} = [^\n]*\n"""(.*?)"""', inspect.getsource(hooks), flags=re.MULTILINE | re.DOTALL)
    assert found, name
    return " ".join(found[1].split())


def _page(name: str) -> str:
    hook = getattr(Hooks, name)
    parameters = list(inspect.signature(hook).parameters)[1:]
    text = f"# `{name}`\n\n{prose(hook.__doc__)}\n**Arguments**: {', '.join(f'`{p}`' for p in parameters)}\n\n"
    kind = next((kind for kind in KINDS if name == hook_of(kind)), None)
    if kind is None:
        return text + f"## A step\n\n`referee.inversion.Step`: {prose(definition('referee.inversion', 'Step').said)}"
    spec = SPECS.get(kind, Spec)
    text += f"## What is registered\n\n`referee.hooks.{spec.__name__}`: {prose(spec.__doc__)}\n"
    if spec is ZooSpec:
        for inner in (hooks.Checkpoint, hooks.ZooFile):
            text += f"`referee.hooks.{inner.__name__}`: {prose(inner.__doc__)}\n"
    if kind in PROTOCOLS:
        home = "referee.bench.contract" if kind == "bench" else "referee.contract"
        text += "## What the part must keep\n\n" + fenced(definition(home, PROTOCOLS[kind]).source)
        for other in MORE.get(kind, []):
            said = "With" if other in ("Column", "Item") else "It may keep this, too"
            text += f"\n{said}:\n\n" + fenced(definition(home, other).source)
    if kind in USAGE:
        made = project("mine", kind)
        text += f"\n## A whole plug-in\n\nThis is what `referee plugins new mine --kind {kind}` writes.\n\n"
        text += fenced(made["referee_mine.py"], title="referee_mine.py")
        text += "\nIts test:\n\n" + fenced(made["tests/test_mine.py"])
    assert "hookimpl" in text, name  # an example, here or in the docstring
    return text
