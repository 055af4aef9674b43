"""What a computation would cost, told without doing it: FLOPs, and bytes alive at a time.

Everything runs on torch's FakeTensors, which have shapes, types and strides and no numbers: any size, on any machine,
in seconds. FLOPs are 2 per multiply-add, of matrix products, convolutions and attention alone, by the formulas of
torch's own counter (``torch.utils.flop_counter``). Bytes are those of the tensors that live, autograd's saved ones
among them, as they come and go; what a kernel needs for itself while it runs (cuDNN's workspace) is not among them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from referee.holdings import holdings


@contextmanager
def no_numbers() -> Iterator[None]:
    """Within it, tensors are made without numbers; they may meet others, which lose theirs."""
    # A module cannot be moved or cast there: torch swaps its tensors for the new ones, and refuses to where anything
    # holds a weak reference, as its own bookkeeping of FakeTensors does. Putting new ones in their place does as well.
    # And drawing from a truncated normal distribution looks at numbers.
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        patch.object(nn.Module, "_apply", _replaced),
        patch.object(nn.init, "_no_grad_trunc_normal_", lambda tensor, *_, **__: tensor),
    ):
        yield


def _replaced(module: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`torch.nn.Module._apply` by replacement; tensors that modules share stay shared."""
    done: dict[int, Tensor] = {}
    for each in module.modules() if recurse else [module]:
        for table in (each._parameters, each._buffers):
            for name, tensor in table.items():
                if tensor is not None and id(tensor) not in done:
                    found = fn(tensor.detach())
                    whole = nn.Parameter(found, tensor.requires_grad) if table is each._parameters else found
                    done[id(tensor)] = done[id(whole)] = whole
                if tensor is not None:
                    table[name] = done[id(tensor)]  # type: ignore[assignment]
    return module


class Meter(TorchDispatchMode):
    """Counts while it is entered; may be entered again.

    Attributes:
        flop: 2 per multiply-add.
        now: bytes that were made under it and live still.
        peak: the most there were of them.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flop, self.now, self.peak = 0, 0, 0
        self._known: dict[int, int] = {}
        """Bytes by storage, 0 for those made elsewhere."""

    def restart(self) -> None:
        """Forget FLOPs and peak; what lives lives on."""
        self.flop, self.peak = 0, self.now

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self._note((args, kwargs), made=False)
        out = func(*args, **kwargs)
        self._note(out, made=True)
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.flop += formula(*args, **kwargs, out_val=out)
        return out

    def _note(self, tree: Any, *, made: bool) -> None:
        for tensor in tree_leaves(tree):
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided:
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self._known:
                    self._known[key] = storage.nbytes() if made else 0
                    weakref.finalize(storage, self._freed, key)
                    self.now += self._known[key]
                    self.peak = max(self.peak, self.now)

    def _freed(self, key: int) -> None:
        self.now -= self._known.pop(key)


def weights(part: Any) -> tuple[int, int]:
    """(numbers, bytes) of all tensors that a part holds, each counted once: those of its modules, however deep."""
    numbers = size = 0
    seen: set[int] = set()
    for tensor in _tensors(part):
        storage = tensor.untyped_storage()
        if storage._cdata not in seen:
            seen.add(storage._cdata)
            numbers, size = numbers + tensor.numel(), size + storage.nbytes()
    return numbers, size


def _tensors(part: Any) -> Iterator[Tensor]:
    for each in holdings(part):
        if isinstance(each, nn.Module):
            yield from each.parameters()
            yield from each.buffers()
        else:
            yield each
