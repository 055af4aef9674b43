"""Published benchmarks of pictures from text, for `referee bench`: T2I-CompBench and GenEval. Importing this package
imports no model library.

The scorers are pure functions of what models said (`scores`, `spatial`, `geneval`); `blip`, `owl`, `clip` and `vlm` ask
the models; `compbench` and `geneval_bench` put them together. Prompts are read from the benchmarks' own files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from referee.hooks import Place, Register, Spec, hookimpl

from .options import CompBenchOptions, GenEvalOptions, check_compbench, check_geneval

if TYPE_CHECKING:
    from referee.bench.contract import Bench

__all__ = ["CompBenchOptions", "GenEvalOptions"]


def _compbench(options: CompBenchOptions, place: Place) -> Bench:
    from .compbench import CompBench

    return CompBench(options, place)


def _geneval(options: GenEvalOptions, place: Place) -> Bench:
    from .geneval_bench import GenEval

    return GenEval(options, place)


@hookimpl
def referee_benches(register: Register) -> None:
    summary = "T2I-CompBench's six suites: BLIP-VQA exactly, CLIPScore; spatial and complex with another detector"
    register(Spec("t2i-compbench", summary, _compbench, CompBenchOptions, check_compbench))
    summary = "GenEval's six tasks by their rules, with another detector"
    register(Spec("geneval", summary, _geneval, GenEvalOptions, check_geneval))
