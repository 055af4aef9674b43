"""What a part holds: its modules and tensors, however deep; and weights that rest on the CPU between a part's turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn


def holdings(part: Any) -> Iterator[Tensor | nn.Module]:
    """The modules that a part holds, and its tensors outside of them, each once; not modules within modules."""
    queue, seen = [part], set[int]()
    while queue:
        one = queue.pop()
        if id(one) in seen or isinstance(one, (str, bytes, int, float, type, ModuleType, FunctionType)):
            continue
        seen.add(id(one))
        if isinstance(one, (Tensor, nn.Module)):
            yield one
        elif isinstance(one, Mapping):
            queue += one.values()
        elif isinstance(one, (list, tuple, set, frozenset)):
            queue += one
        else:
            queue += getattr(one, "__dict__", {}).values()
            queue += [getattr(one, name) for name in getattr(type(one), "__slots__", ()) if hasattr(one, name)]


def send_home(part: Any) -> None:
    """Bring the weights of a part's modules to the CPU; its other tensors stay where they are."""
    for each in holdings(part):
        if isinstance(each, nn.Module):
            each.to("cpu")


@contextmanager
def lent(part: Any, device: torch.device | str) -> Iterator[None]:
    """Within it, a part's modules hold copies of their weights on a device; afterwards those that they held before.

    The weights are frozen, so nothing is copied back. Tensors that modules share stay shared.
    """
    away: dict[int, Tensor] = {}
    home: list[tuple[dict[str, Any], str, Tensor]] = []
    modules = {id(m): m for each in holdings(part) if isinstance(each, nn.Module) for m in each.modules()}
    try:
        for module in modules.values():
            tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for table in tables:
                for name, tensor in table.items():
                    if tensor is not None:
                        if id(tensor) not in away:
                            copy = tensor.detach().to(device)
                            away[id(tensor)] = nn.Parameter(copy, False) if table is module._parameters else copy
                        home.append((table, name, tensor))
                        table[name] = away[id(tensor)]
        yield
    finally:
        for table, name, tensor in home:
            table[name] = tensor
