"""`referee plan`: the cost of a run before it, on the device here or another, and what makes it fit."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from referee.command import flags
from referee.command.asked import settings_of
from referee.errors import OptionError, nearest
from referee.planning.devices import GIB, KNOWN, Device, here

if TYPE_CHECKING:
    from referee.planning.fit import Fit
    from referee.planning.preflight import Forecast
    from referee.plugins import Registry
    from referee.settings import Settings

SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(G|M)(i?)B?", re.IGNORECASE)


def plan(
    prompt: flags.Text = None,
    referee: flags.Referees = None,
    prior: flags.PriorOption = None,
    aug: flags.Augment = None,
    balancer: flags.Balance = None,
    judge: flags.JudgeOption = None,
    keep: flags.Keep = None,
    pick: flags.Pick = False,
    zoo: flags.Zoo = None,
    preset: flags.Preset = None,
    config: flags.Config = None,
    set_: flags.Sets = None,
    steps: flags.Steps = None,
    views: flags.ViewCount = None,
    seed: flags.Seed = None,
    n: flags.Count = None,
    size: flags.Size = None,
    out: flags.Out = None,
    init: flags.Begin = None,
    strength: flags.Strength = None,
    mask: flags.MaskFile = None,
    region: flags.Regions = None,
    negative: flags.Negative = None,
    device: flags.Device = None,
    dtype: flags.Dtype = None,
    on: Annotated[
        str | None,
        typer.Option("--on", metavar="|".join([*KNOWN, "cpu"]), help="Another device. [dim]default: here[/dim]"),
    ] = None,
    fit: Annotated[
        str | None, typer.Option("--fit", metavar="12GB", help="Say what makes the run fit into so much memory.")
    ] = None,
    json_: flags.Json = False,
    block: flags.Block = None,
    no_plugins: flags.NoPlugins = False,
    plugin: flags.Files = None,
) -> None:
    """What a run would cost: FLOPs, time and memory. Needs no weights, writes nothing, and takes what `generate` takes.

    [dim]referee plan --zoo sd15 --dtype bfloat16 --on rtx3060 --fit 12GB[/dim]
    """
    registry = flags.open_registry(block, no_plugins, plugin)
    settings = settings_of(
        registry, config, zoo, preset, set_, referee=referee, prior=prior, aug=aug, balancer=balancer, steps=steps,
        views=views, seed=seed, n=n, size=size, device=device, dtype=dtype, judge=judge, keep=keep, pick=pick,
        init=init, strength=strength, mask=mask, region=region, negative=negative,
    )  # fmt: skip
    said = prompt or "a red circle and a blue square"
    _weigh(said, settings, registry, on, fit, json_)


def _weigh(prompt: str, settings: Settings, registry: Registry, on: str | None, fit: str | None, as_json: bool) -> None:
    """Weigh, and print.

    Raises:
        OptionError: there is no such device or amount of memory.
        RefereeError: see `referee.planning.preflight.Scales.weigh`.
    """
    budget = None if fit is None else parse_size(fit)
    device = _device(on, settings.device)
    from referee.planning.fit import fit as find
    from referee.planning.preflight import Scales, outlined
    from referee.prompt import Prompt

    zoo = registry.find("zoo", settings.zoo) if settings.zoo else None
    with outlined(zoo) as shelf:
        scales = Scales(registry, Prompt(prompt), zoo, shelf)
        forecast = scales.weigh(settings)
        found = None if budget is None else find(scales, registry, settings, budget - device.overhead, device.apart)
    if as_json:
        print(
            json.dumps(
                _table(forecast, device) | ({} if found is None else {"fit": _fit_table(found, device)}), indent=2
            )
        )
        return
    for line in _lines(forecast, device):
        print(line)
    if found is not None:
        print()
        for line in _fit_lines(found, device, fit or ""):
            print(line)


def parse_size(text: str) -> int:
    """Bytes.

    >>> parse_size("12GB"), parse_size("8 GiB")
    (12000000000, 8589934592)

    Raises:
        OptionError: it is no amount.
    """
    found = SIZE.fullmatch(text.strip())
    if not found or float(found[1]) == 0:
        raise OptionError(f"--fit {text}: write an amount of memory, for example 12GB.")
    power = {"g": 3, "m": 2}[found[2].lower()]
    return int(float(found[1]) * (1024 if found[3] else 1000) ** power)


def _device(on: str | None, wanted: str) -> Device:
    from referee.parts import device_name

    if on is None:
        return here(device_name(wanted))
    if on == "cpu":
        return here("cpu")
    if on not in KNOWN:
        raise OptionError(f"--on {on}: no such device is known. {nearest(on, [*KNOWN, 'cpu'])}")
    return KNOWN[on]


def _need(forecast: Forecast, device: Device) -> int:
    return forecast.need(device.apart) + device.overhead


def _lines(forecast: Forecast, device: Device) -> list[str]:
    settings, rules = forecast.settings, forecast.settings.rules
    lines = [
        f"{len(settings.seeds)} x {settings.height}x{settings.width} pixels, {rules.steps} steps, {rules.views} views, "
        f"{rules.micro_batch} at once, {settings.dtype}", "",
        f"{'part':24} {'parameters':>14} {'weights':>10} {'TFLOP/step':>11} {'beside':>10}",
    ]  # fmt: skip
    for part in forecast.parts:
        flop = sum(part.flop.values()) / 1e12
        silent = part.kind == "referee" and not part.flop["views"]
        beside = "sits out" if silent else _size(part.peak + part.kept)
        lines.append(f"{part.name:24} {part.numbers:14,} {_size(part.weights):>10} {flop:11.3g} {beside:>10}")
        if part.kind == "prior":
            lines += [f"  {call:22} {'':14} {'':10} {count / 1e12:11.3g}" for call, count in part.flop.items()]
    need = _need(forecast, device)
    lines += [
        "",
        f"a step    {forecast.step / 1e12:.3g} TFLOP{_time(forecast.step, device, settings)}",
        f"the run   {forecast.run / 1e12:.4g} TFLOP{_time(forecast.run, device, settings)}",
        f"memory    {_size(need)}: weights {_size(forecast.weights)}, the rest of a step at its worst "
        f"{_size(forecast.activations)}, torch's own {_size(device.overhead)}",
    ]
    if device.memory:
        verdict = "fits" if need <= device.memory else f"does NOT fit: try --fit {device.memory // GIB}GiB"
        lines.append(f"on        {device.title} ({_size(device.memory)}): {verdict}")
    return [*lines, "Estimates; times take 40 % of the data sheet's rate for granted, and were not measured."]


def _fit_lines(found: Fit, device: Device, asked: str) -> list[str]:
    need = _size(_need(found.forecast, device))
    if not found.fits:
        return [f"Nothing known fits into {asked}; the least is {need}:", *(f"  {each}" for each in found.flags)]
    if not found.flags:
        return [f"It fits into {asked} as it is."]
    lines = [
        f"To fit into {asked} ({need}):",
        *(f"  {each}" for each in found.chosen),
        "Add:",
        f"  {' '.join(found.flags)}",
    ]
    return lines


def _table(forecast: Forecast, device: Device) -> dict[str, Any]:
    settings = forecast.settings
    return {
        "device": device.title,
        "dtype": settings.dtype,
        "micro_batch": settings.rules.micro_batch,
        "parts": [
            {
                "name": part.name, "kind": part.kind, "parameters": part.numbers, "weight_bytes": part.weights,
                "tflop": {call: count / 1e12 for call, count in part.flop.items()}, "peak_bytes": part.peak,
                "kept_bytes": part.kept,
            }
            for part in forecast.parts
        ],
        "tflop_per_step": forecast.step / 1e12,
        "tflop": forecast.run / 1e12,
        "seconds_per_step": device.seconds(forecast.step, settings.dtype),
        "seconds": device.seconds(forecast.run, settings.dtype),
        "bytes": {
            "weights": forecast.weights, "activations": forecast.activations, "overhead": device.overhead,
            "all": _need(forecast, device), "device": device.memory or None,
        },
    }  # fmt: skip


def _fit_table(found: Fit, device: Device) -> dict[str, Any]:
    return {
        "fits": found.fits,
        "flags": list(found.flags),
        "chosen": list(found.chosen),
        **_table(found.forecast, device),
    }


def _time(flop: int, device: Device, settings: Settings) -> str:
    seconds = device.seconds(flop, settings.dtype)
    if seconds is None:
        return ""
    if seconds < 100:
        return f", about {seconds:.2g} s"
    return f", about {seconds / 60:.0f} min" if seconds < 6000 else f", about {seconds / 3600:.0f} h"


def _size(count: float) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB / 10 else f"{count / (1 << 20):.1f} MiB"
