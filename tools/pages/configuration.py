"""The configuration: every key of the settings, and what the presets say."""

from __future__ import annotations

import tomllib
from importlib.resources import files

from pydantic import BaseModel

from pages.parts import registry
from pages.prose import fenced, options, prose
from referee import schedules
from referee.rules import Rules
from referee.settings import BalancerPart, Part, RefereePart, Settings

TABLES: dict[str, tuple[str, type[BaseModel], str]] = {
    "settings": ("Top level", Settings, ""),
    "rules": ("`[rules]`", Rules, "The numbers of the algorithm, with the paper's symbols."),
    "referees": ("`[[referees]]`", RefereePart, "One table for each referee at the table."),
    "part": ("`[prior]` and `[augmentation]`", Part, ""),
    "balancer": ("`[balancer]`", BalancerPart, ""),
}

INTRODUCTION = """# Configuration

All that a run needs but the prompt is data. It comes in layers, later over earlier: the defaults below, a preset
(`--preset`, by default that of the zoo), a TOML file (`--config`), single values (`--set rules.steps=80`), and flags
of the command. Tables merge key by key; lists are replaced. An unknown key is an error.

The `run.toml` that a run leaves in its folder is such a file, and complete: `--config run.toml` repeats the run.

```toml
seeds = [7, 8]

[rules]
steps = 200
lr = "cosine(0.12, 0.05)"

[[referees]]
name = "blip2"

[[referees]]
name = "clip"
weight = "linear(0, 1)"
from = 0.25

[balancer]
name = "upgrad"
```
"""


def page() -> str:
    """The whole page."""
    text = INTRODUCTION
    for anchor, (title, model, said) in TABLES.items():
        text += f"\n## {title} {{ #{anchor} }}\n\n{said or prose(model.__doc__)}\n\n{options(model)}"
    text += "\n## Schedules { #schedules }\n\n" + prose(schedules.__doc__)
    text += "\nProgress is step / steps, from 0: the first step has the first value.\n"
    text += "\n## Presets { #presets }\n\nAn empty cell is the default.\n\n" + _presets()
    return text.replace("../configuration.md#", "#")


def presets() -> dict[str, str]:
    """All presets as TOML, by name: the framework's, then those of the built-in zoos."""
    shipped = sorted((files("referee") / "presets").iterdir(), key=lambda path: path.name)
    found = {path.name.removesuffix(".toml"): path.read_text(encoding="utf-8") for path in shipped}
    there = registry()
    for zoo in there.names("zoo"):
        found |= there.find("zoo", zoo).presets
    return found


def _presets() -> str:
    there = presets()
    tables = {name: tomllib.loads(text) for name, text in there.items()}
    rows = {side: [table.get(side, "") for table in tables.values()] for side in ("height", "width")}
    rows |= {f"rules.{key}": [t.get("rules", {}).get(key, "") for t in tables.values()] for key in Rules.model_fields}
    head = f"| | {' | '.join(f'`{name}`' for name in tables)} |\n|---|{'---|' * len(tables)}\n"
    body = "".join(f"| `{key}` | {' | '.join(map(str, row))} |\n" for key, row in rows.items() if any(map(str, row)))
    whole = "".join(f"\n### `{name}` {{ #preset-{name} }}\n\n{fenced(text, 'toml')}" for name, text in there.items())
    return head + body + whole
