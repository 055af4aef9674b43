"""Checks of a bench: its items have a place each, its methods are settings, and it scores what it says, twice alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite

import torch
from pydantic import BaseModel

from referee.bench.contract import Bench, Column, Item
from referee.bench.methods import prepare
from referee.errors import RefereeError
from referee.hooks import Place, Spec
from referee.options import validate
from referee.plugins import Registry
from referee.prompt import Prompt
from referee.testing.case import SHARED
from referee.testing.outcome import Check, CheckFailed, LeftOut

SIDE = 64
"""Pixels of the picture that is scored: noise, the same for all."""


class BenchCase:
    """A bench with options, and the plug-ins by which its methods draw.

    Attributes:
        spec, options: as checked.
        registry: the plug-ins.
        bench: made once.
    """

    def __init__(self, spec: Spec, options: Mapping[str, object], registry: Registry, place: Place) -> None:
        """RefereeError: the options are refused, or files are missing."""
        self.spec, self.registry = spec, registry
        self.options: BaseModel = validate(spec.options, options, f"bench '{spec.name}'")
        if spec.check:
            spec.check(self.options)
        self.bench = spec.factory(self.options, place)

    def scored(self, item: Item) -> Mapping[str, float]:
        """What it says of noise."""
        x = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        kept = x.clone()
        found: Mapping[str, float] = self.bench.score(x, item, 1)
        if not torch.equal(x, kept):
            raise CheckFailed("It changes the picture that it scores. Work on a copy.")
        return found

    def one_of_each_suite(self) -> list[Item]:
        """The first item of each."""
        return list({item.suite: item for item in reversed(self.bench.items())}.values())


def keeps_the_contract(case: BenchCase) -> str:
    """It has columns, items, methods and a score."""
    if not isinstance(case.bench, Bench):
        raise CheckFailed("It is none: see referee.bench.contract.Bench for what it needs.")
    if not case.bench.columns or not all(isinstance(column, Column) for column in case.bench.columns.values()):
        raise CheckFailed("columns= must hold a referee.bench.contract.Column for each number, the main one first.")
    return ", ".join(case.bench.columns)


def items_have_a_place_each(case: BenchCase) -> str:
    """Suite and index tell items apart; prompts can be read, data can be written; asked again, it says the same."""
    items = case.bench.items()
    places = [(item.suite, item.index) for item in items]
    if not items or len(set(places)) < len(places):
        raise CheckFailed(
            "There must be an item at least, and no two of one suite and index: number each suite from 0."
        )
    for item in items:
        try:
            Prompt(item.prompt)
            json.dumps(item.data)
        except (RefereeError, TypeError, ValueError) as error:
            raise CheckFailed(f"{item.suite} {item.index} cannot be drawn or written down: {error}") from error
    if list(case.bench.items()) != list(items):
        raise CheckFailed("Asked again it has other items. Draw them from a seed of its own.")
    return f"{len(items)} items"


def methods_are_settings(case: BenchCase) -> str:
    """Each of its own methods passes all that is looked at before a model loads."""
    methods = case.bench.methods()
    if not methods:
        raise LeftOut("it has none of its own")
    try:
        prepare(methods, case.bench.items(), case.registry)
    except RefereeError as error:
        raise CheckFailed(str(error)) from error
    return ", ".join(methods)


def scores_its_columns(case: BenchCase) -> str:
    """Of one item of each suite: numbers, of columns that it has, a proportion in [0, 1]."""
    told: set[str] = set()
    for item in case.one_of_each_suite():
        found = case.scored(item)
        if unknown := sorted(found.keys() - case.bench.columns.keys()):
            raise CheckFailed(f"It scores '{unknown[0]}', which is none of its columns.")
        for key, value in found.items():
            share = case.bench.columns[key].proportion
            if not isfinite(value) or (share and not 0 <= value <= 1):
                raise CheckFailed(
                    f"{item.suite} {item.index}: {key} is {value}{', and no proportion' if share else ''}."
                )
        told |= found.keys()
    return ", ".join(key for key in case.bench.columns if key in told)


def repeats_itself(case: BenchCase) -> None:
    """The same picture, item and seed have the same score."""
    for item in case.one_of_each_suite():
        if case.scored(item) != case.scored(item):
            raise CheckFailed(
                "Scored again, a picture has other numbers. Draw views from the seed that score() is given."
            )


CHECKS: tuple[Check, ...] = (
    *SHARED, keeps_the_contract, items_have_a_place_each, methods_are_settings, scores_its_columns, repeats_itself,
)  # fmt: skip
