"""Balancers: rules that make one direction of several referees' gradients. Importing this package imports no torch.

| name | direction | source |
|---|---|---|
| `norm` | mean of the unit rows: the default | core's `referee.balance` |
| `sum` | plain weighted sum, at its own length | ReNO, arXiv 2406.04312 |
| `smooth` | rows over a running mean of their lengths | this project |
| `pcgrad` | each row less what it has against the others | arXiv 2001.06782 |
| `mgda` | the shortest vector of the rows' hull | Désidéri 2012; arXiv 1810.04650 |
| `imtl` | equally long along every row | IMTL-G, Liu et al., ICLR 2021 |
| `upgrad` | mean of the rows, each brought where it hurts none | arXiv 2406.16232 |
| `torchjd` | any aggregator of the torchjd library | docs of torchjd |

All but `sum` bring rows to unit length first, so that no referee shouts. What comes out has a length of at most 1
(`smooth`: of at most its clip), shorter the less the rows agree, and is given the prior's length: the paper's outer
rule. With one referee all but `sum` and `smooth` are the paper's rule, and `smooth` is but for the length. For two rows
of equal weight nearly all agree in direction; they begin to differ at three.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from referee.hooks import NoOptions, Place, Register, Spec, hookimpl

from .options import SmoothOptions, TorchjdOptions, check_torchjd

if TYPE_CHECKING:
    from referee.contract import Balancer

__all__ = ["SmoothOptions", "TorchjdOptions"]


def _rule(module: str) -> Callable[[Any, Place], Balancer]:
    def make(options: NoOptions, place: Place) -> Balancer:
        rule: Balancer = import_module(f".{module}", __name__).rule  # torch: only now
        return rule

    return make


def _smooth(options: SmoothOptions, place: Place) -> Balancer:
    from .smooth import Smooth

    return Smooth(options.decay, options.clip)


def _torchjd(options: TorchjdOptions, place: Place) -> Balancer:
    from .from_torchjd import load

    return load(options.name, options.arguments)


@hookimpl
def referee_balancers(register: Register) -> None:
    register(Spec("norm", "mean of the unit gradients: the default", _rule("norm")))
    register(Spec("sum", "plain weighted sum, for fixed weights (ReNO)", _rule("sum")))
    register(Spec("smooth", "gradients over a running mean of their lengths", _smooth, SmoothOptions))
    register(Spec("pcgrad", "each gradient less what it has against the others", _rule("pcgrad")))
    register(Spec("mgda", "the shortest vector of the gradients' hull: hurts none", _rule("mgda")))
    register(Spec("imtl", "equally far along every gradient, whatever the weights", _rule("imtl")))
    register(Spec("upgrad", "mean of the gradients, each brought where it hurts none", _rule("upgrad")))
    register(
        Spec(
            "torchjd",
            "an aggregator of the torchjd library: torchjd:NAME",
            _torchjd,
            TorchjdOptions,
            check_torchjd,
            bare="name",
        )
    )
