"""The command line's short flags as the last layer of settings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from referee.control.region import parse_prompted
from referee.errors import OptionError
from referee.layers import Layer, merge
from referee.settings import MAX_IMAGES, BalancerPart, JudgePart, Part, RefereePart
from referee.typed import parse_part

REGION_WEIGHT = 4
"""Of a referee that --region adds: at 1 those of the whole, content with any order, had their way (docs/control.md)."""


def flag_layer(
    *,
    referee: Iterable[str] | None = None,
    prior: str | None = None,
    aug: str | None = None,
    balancer: str | None = None,
    judge: str | None = None,
    keep: str | None = None,
    pick: bool = False,
    steps: int | None = None,
    views: int | None = None,
    seed: int | None = None,
    n: int | None = None,
    size: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    init: str | None = None,
    strength: float | None = None,
    mask: str | None = None,
    region: Iterable[str] | None = None,
    negative: str | None = None,
    seeds: Any = None,
    referees: Any = None,
) -> Layer:
    """The command line's short flags as the last layer; None says nothing.

    Args:
        seeds: those of the layers below, not yet checked: n without seed counts on from the first of them.
        referees: likewise: the first of them is asked again for each region.

    Raises:
        OptionError: n is below 1, the size is not of the form HxW, or a region cannot be read.
    """
    layer: Layer = {"rules": {}}
    if referee is not None:
        layer["referees"] = [parse_part(text, RefereePart) for text in referee]
    if region:
        layer["referees"] = _with_regions(layer.get("referees", referees), region)
    if prior is not None:
        layer["prior"] = parse_part(prior, Part)
    if negative is not None:
        layer["prior"] = merge(layer.get("prior", {}), {"options": {"negative": negative}})
    for name, value in (("image", init), ("mask", mask)):
        if value is not None:  # another file than a record's
            layer.setdefault("init", {}).update({name: value, f"{name}_sha256": ""})
    if strength is not None:
        layer.setdefault("init", {})["strength"] = strength
    if aug is not None:
        layer["augmentation"] = None if aug == "none" else parse_part(aug, Part)
    if balancer is not None:
        layer["balancer"] = parse_part(balancer, BalancerPart)
    if judge is not None:
        layer["judge"] = None if judge == "none" else parse_part(judge, JudgePart)
    if keep is not None or pick:
        own = {} if keep is None else {"keep": keep}
        if judge == "none":
            raise OptionError("--keep and --pick are about what a judge says, and --judge none takes it away.")
        layer["judge"] = {**(layer.get("judge") or {}), **own, **({"pick": True} if pick else {})}
    for name, number in (("steps", steps), ("views", views)):
        if number is not None:
            layer["rules"][name] = number
    if n is not None and not 1 <= n <= MAX_IMAGES:
        raise OptionError(f"-n {n}: ask for 1 to {MAX_IMAGES} pictures.")
    if seed is not None or n is not None:
        below = seeds[0] if isinstance(seeds, list) and seeds and isinstance(seeds[0], int) else 0
        first = below if seed is None else seed
        layer["seeds"] = list(range(first, first + (n or 1)))
    if size is not None:
        sides = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})", size.lower())
        if not sides:
            raise OptionError(f"--size {size}: write HEIGHTxWIDTH in pixels, for example 64x64.")
        layer["height"], layer["width"] = int(sides[1]), int(sides[2])
    for name, text in (("device", device), ("dtype", dtype)):
        if text is not None:
            layer[name] = text
    return layer


def _with_regions(referees: Any, regions: Iterable[str]) -> list[Any]:
    """The panel, and for each ``x0,y0,x1,y1: prompt`` its first referee once more, which sees that part alone."""
    panel = list(referees) if isinstance(referees, (list, tuple)) else []
    if not panel or not isinstance(panel[0], dict):
        raise OptionError(
            "--region shows a part of the picture to the first referee, and there is none: add --referee."
        )
    own = {key: panel[0][key] for key in ("name", "options", "timeout", "offload") if key in panel[0]}
    taken = {part.get("label") for part in panel if isinstance(part, dict)}
    labels = (label for i in range(1, 1000) if (label := f"region-{i}") not in taken)
    for text, label in zip(regions, labels, strict=False):
        part, prompt = parse_prompted(text)
        panel.append({**own, "label": label, "region": str(part), "prompt": prompt, "weight": REGION_WEIGHT})
    return panel
