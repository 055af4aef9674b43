"""Balancers: what each promises, written once and picked by each rule; then each against its source and torchjd."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from referee import balance
from referee.command.asked import settings_of
from referee.contract import Balancer, Memory, Remembering
from referee.errors import OptionError, PluginError
from referee.hooks import Place
from referee.inversion import Seat, Step, invert
from referee.plugins import Registry, discover
from referee.rules import Rules
from referee.schedules import constant
from referee.testing import ToyAugmentation, ToyPrior, ToyReferee
from referee_balancers import SmoothOptions, TorchjdOptions
from referee_balancers import from_torchjd as library
from referee_balancers.from_torchjd import Torchjd
from referee_balancers.gram import MOST, RIDGE
from referee_balancers.imtl import rule as imtl
from referee_balancers.mgda import rule as mgda
from referee_balancers.mgda import weigh as mgda_factors
from referee_balancers.norm import rule as norm
from referee_balancers.pcgrad import rule as pcgrad
from referee_balancers.smooth import Smooth
from referee_balancers.sum import rule as plain_sum
from referee_balancers.upgrad import rule as upgrad

try:
    import torchjd
except ImportError:
    torchjd = None
needs_torchjd = pytest.mark.skipif(torchjd is None, reason="the extra torchjd is not installed")

SHAPE = (2, 2, 2)
NAMES = "abcdef"
CLOSE = {"rtol": 1e-5, "atol": 2e-5}  # sqrt(RIDGE) is 1e-5

settings.register_profile("balancers", derandomize=True, deadline=None, max_examples=40)
settings.load_profile("balancers")


@dataclass
class Case:
    """Rows of a few samples, among them equal, opposite and orthogonal ones; weights; a pull."""

    rows: dict[str, Tensor]
    weights: dict[str, Tensor]
    pull: Tensor | None

    def __len__(self) -> int:
        return len(next(iter(self.rows.values())))

    def sample(self, i: int, names: list[str] | None = None) -> Case:
        """One sample alone, with some of its rows."""
        names = list(self.rows) if names is None else names
        pull = None if self.pull is None else self.pull[i : i + 1]
        return Case({n: self.rows[n][i : i + 1] for n in names}, {n: self.weights[n][i : i + 1] for n in names}, pull)


@st.composite
def cases(draw: st.DrawFn, least: int = 1, most: int = 4) -> Case:
    n, r = draw(st.integers(1, 3)), draw(st.integers(least, most))
    small = st.lists(st.integers(-2, 2), min_size=8, max_size=8).filter(any)  # equal, opposite, orthogonal: often
    seeded = st.integers(0, 10**6).map(
        lambda seed: torch.randn(8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()
    )
    vector = (small | seeded).map(lambda v: torch.tensor(v, dtype=torch.float64).view(SHAPE))
    batch = st.lists(vector, min_size=n, max_size=n).map(torch.stack)
    scale = st.sampled_from([1e-6, 0.01, 1.0, 100.0, 1e6])
    share = st.lists(st.sampled_from([0.1, 0.5, 1.0, 3.0]), min_size=n, max_size=n).map(
        lambda values: torch.tensor(values, dtype=torch.float64)
    )
    names = NAMES[:r]
    rows = {name: draw(batch) * draw(scale) for name in names}
    return Case(rows, {name: draw(share) for name in names}, draw(batch | st.none()))


def push(rule: Balancer, case: Case) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # imtl, of weights
        return fresh(rule)(case.rows, case.weights, case.pull)


def fresh(rule: Balancer) -> Balancer:
    return rule.with_memory({}) if isinstance(rule, Remembering) else rule


def direction(rule: Balancer, case: Case) -> Tensor:
    """The push in units of the length that it takes from the prior."""
    return push(rule, Case(case.rows, case.weights, None)) / 8**0.5


def close(found: Tensor, expected: Tensor, scale: Tensor | None = None) -> None:
    """Up to rounding, measured against the pull."""
    if scale is not None:
        found, expected = (g / balance.lengths(scale)[:, None, None, None] for g in (found, expected))
    torch.testing.assert_close(found, expected, **CLOSE)


# --- properties: each takes a rule and a case, and cannot hold by chance ----------------------------------------------


def does_not_mind_the_order(rule: Balancer, case: Case) -> None:
    turned = Case(
        {name: case.rows[name] for name in reversed(case.rows)},
        {name: case.weights[name] for name in reversed(case.rows)},
        case.pull,
    )
    close(push(rule, turned), push(rule, case), case.pull)


def is_the_papers_rule_for_one(rule: Balancer, case: Case) -> None:
    g = case.rows["a"]
    size = balance.lengths(g) * 0 + 8**0.5 if case.pull is None else balance.lengths(case.pull)
    alone = Case({"a": g}, {"a": case.weights["a"]}, case.pull)
    close(push(rule, alone), g / balance.lengths(g)[:, None, None, None] * size[:, None, None, None], case.pull)


def does_not_mind_lengths(rule: Balancer, case: Case) -> None:
    factors = [1e-6, 300.0, 1e-2, 1e6]
    scaled = {name: g * f for (name, g), f in zip(case.rows.items(), factors, strict=False)}
    close(push(rule, Case(scaled, case.weights, case.pull)), push(rule, case), case.pull)


def hurts_none(rule: Balancer, case: Case) -> None:
    d = direction(rule, case).flatten(1)
    for unit in balance.directions(case.rows).values():
        assert ((d * unit.flatten(1)).sum(1) >= -1.01 * RIDGE**0.5).all()


def hurts_none_of_two(rule: Balancer, case: Case) -> None:
    two = list(case.rows)[:2]
    hurts_none(rule, Case({n: case.rows[n] for n in two}, {n: case.weights[n] for n in two}, case.pull))


def takes_the_length_of_the_pull(rule: Balancer, case: Case) -> None:
    assume(case.pull is not None)
    assert case.pull is not None
    close(push(rule, case), direction(rule, case) * balance.lengths(case.pull)[:, None, None, None], case.pull)
    assert (balance.lengths(direction(rule, case)) <= 1 + 1e-6).all()


def rests_without_weight(rule: Balancer, case: Case) -> None:
    """A row of weight 0 does not act, whatever is in it; the samples where it weighs something are as before."""
    poisons = [torch.nan, torch.inf, 0.0, 7.0]
    for poison in poisons:
        bad, weights = case.rows["a"].clone(), case.weights["a"].clone()
        bad[0], weights[0] = poison, 0.0
        hurt = Case({**case.rows, "a": bad}, {**case.weights, "a": weights}, case.pull)
        found, whole = push(rule, hurt), push(rule, case)
        assert found.isfinite().all()
        close(found[1:], whole[1:], None if case.pull is None else case.pull[1:])
        others = [name for name in case.rows if name != "a"]
        if others:
            left = case.sample(0, others)
            close(found[:1], push(rule, left), left.pull)
        else:
            assert (found[0] == 0).all()


def sees_each_sample_alone(rule: Balancer, case: Case) -> None:
    together = push(rule, case)
    for i in range(len(case)):
        close(together[i : i + 1], push(rule, case.sample(i)), case.sample(i).pull)


def takes_float32(rule: Balancer, case: Case) -> None:
    def typed(dtype: torch.dtype) -> Case:
        rows = {name: g.float().to(dtype) for name, g in case.rows.items()}
        pull = None if case.pull is None else case.pull.to(dtype)
        return Case(rows, {name: w.float() for name, w in case.weights.items()}, pull)

    single = push(rule, typed(torch.float32))
    assert single.dtype == torch.float32
    close(single.double(), push(rule, typed(torch.float64)), case.pull)


def is_nil_for_opposites(rule: Balancer, case: Case) -> None:
    g = case.rows["a"]
    one = torch.ones(len(g), dtype=torch.float64)
    d = direction(rule, Case({"a": g, "b": -5 * g}, {"a": one, "b": one}, None))
    assert (balance.lengths(d) <= 2 * RIDGE**0.5).all()


def goes_with_the_unanimous(rule: Balancer, case: Case) -> None:
    g = case.rows["a"]
    same = Case({n: (i + 1) * g for i, n in enumerate(case.rows)}, case.weights, None)
    close(direction(rule, same), balance.directions({"a": g})["a"])


ALWAYS = (does_not_mind_the_order, rests_without_weight, sees_each_sample_alone, takes_float32)
UNITS = (*ALWAYS, is_the_papers_rule_for_one, does_not_mind_lengths, takes_the_length_of_the_pull)
FRIENDLY = (*UNITS, is_nil_for_opposites, goes_with_the_unanimous)
KIND = (*FRIENDLY, hurts_none)

PICKED: dict[str, tuple[Balancer, tuple[Callable[[Balancer, Case], None], ...]]] = {
    "norm": (norm, FRIENDLY),
    "sum": (plain_sum, ALWAYS),
    "smooth": (Smooth(), FRIENDLY),
    "pcgrad": (pcgrad, (*FRIENDLY, hurts_none_of_two)),
    "mgda": (mgda, KIND),
    "imtl": (imtl, KIND),
    "upgrad": (upgrad, KIND),
}
PAIRS = [(name, promise.__name__) for name, (_, promises) in PICKED.items() for promise in promises]


@pytest.mark.parametrize(("name", "promise"), PAIRS)
@given(case=cases())
def test_promise(name: str, promise: str, case: Case) -> None:
    rule, promises = PICKED[name]
    next(p for p in promises if p.__name__ == promise)(rule, case)


def test_some_rules_hurt() -> None:
    """That the promise says something: the mean, and pcgrad with three rows, do not keep it."""
    seed = torch.Generator().manual_seed(3)
    g = (
        torch.randn(200, 3, *SHAPE, generator=seed, dtype=torch.float64)
        + torch.tensor([1.0, -1.0, 0.0])[:, None, None, None]
    )
    rows = {name: g[:, i] for i, name in enumerate("abc")}
    case = Case(rows, {name: torch.ones(200, dtype=torch.float64) for name in rows}, None)
    for rule in (norm, pcgrad):
        with pytest.raises(AssertionError):
            hurts_none(rule, case)


# --- each rule against its source -------------------------------------------------------------------------------------


def three(cosine: float = -0.4) -> Case:
    """Three unit rows that all make the same angle: cosine -0.4 is conflict for every pair."""
    gram = torch.full((3, 3), cosine, dtype=torch.float64).fill_diagonal_(1.0)
    rows = torch.zeros(3, 8, dtype=torch.float64)
    rows[:, :3] = torch.linalg.cholesky(gram)
    one = torch.ones(1, dtype=torch.float64)
    return Case({n: g.view(1, *SHAPE) for n, g in zip("abc", rows, strict=True)}, dict.fromkeys("abc", one), None)


@pytest.mark.parametrize("name", ["norm", "pcgrad", "mgda", "imtl", "upgrad"])
def test_where_all_is_symmetric_the_bisector_is_pushed(name: str) -> None:
    case = three()
    d = direction(PICKED[name][0], case)
    mean = direction(norm, case)
    close(d / balance.lengths(d), mean / balance.lengths(mean))


def test_pcgrad_of_two_by_hand() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([-0.6, 0.8])
    expected = ((a - (a @ b) * b) + (b - (a @ b) * a)) / 2
    rows = {
        "a": torch.cat([a, torch.zeros(6)]).view(1, *SHAPE),
        "b": 9 * torch.cat([b, torch.zeros(6)]).view(1, *SHAPE),
    }
    one = dict.fromkeys("ab", torch.ones(1))
    close(direction(pcgrad, Case(rows, one, None)).flatten()[:2], expected)


def test_pcgrad_is_the_mean_over_the_papers_orders() -> None:
    case = Case({n: torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
                 for i, n in zip((1, 4, 8, 9), "abcd", strict=True)},
                dict.fromkeys("abcd", torch.ones(1, dtype=torch.float64)), None)  # fmt: skip
    units = torch.stack([u.flatten() for u in balance.directions(case.rows).values()])
    total, orders = torch.zeros(8, dtype=torch.float64), list(permutations(range(4)))
    for i in range(4):
        for order in orders:
            g = units[i]
            for j in order:
                if j != i and g @ units[j] < 0:
                    g = g - (g @ units[j]) * units[j]
            total += g / len(orders) / 4
    close(direction(pcgrad, case).flatten(), total)


@given(case=cases(least=2))
def test_mgda_is_the_shortest_of_the_hull(case: Case) -> None:
    units = torch.stack([u.flatten(1) for u in balance.directions(case.rows).values()], 1)
    w = torch.stack(list(case.weights.values()), 1)
    w = w / w.amax(1, keepdim=True)
    factors = mgda_factors(units @ units.mT, w)
    assert (factors >= 0).all()
    torch.testing.assert_close((w * factors).sum(1), torch.ones(len(w), dtype=torch.float64))
    d = torch.einsum("nr,nrd->nd", factors, units)
    # Of a convex set the shortest is the one that no other point turns to: d . (p - d) >= 0.
    assert (torch.einsum("nrd,nd->nr", units, d) >= w * d.square().sum(1, keepdim=True) - 1e-8).all()


@given(case=cases(least=2))
def test_upgrad_projects_on_what_hurts_none(case: Case) -> None:
    units = torch.stack([u.flatten(1) for u in balance.directions(case.rows).values()], 1)
    tiny = {n: torch.full((len(case),), 1e-12, dtype=torch.float64) for n in case.rows}
    for i, name in enumerate(case.rows):  # nearly all weight on one row: its projection alone
        p = direction(upgrad, Case(case.rows, {**tiny, name: torch.ones_like(tiny[name])}, None)).flatten(1)
        along = torch.einsum("nrd,nd->nr", units, p)
        assert (along >= -2e-5).all()
        torch.testing.assert_close(along[:, i], p.square().sum(1), rtol=1e-4, atol=1e-4)  # (u_i - p) . p = 0
        hurt = torch.einsum("nrd,nd->nr", units, units[:, i])
        free = (hurt >= 0).all(1)
        torch.testing.assert_close(p[free], units[free, i], **CLOSE)  # who hurts nobody stays


def test_imtl_is_equally_long_along_every_row() -> None:
    g = torch.randn(5, 4, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    case = Case({n: 10.0**i * g[:, i] for i, n in enumerate("abcd")},
                dict.fromkeys("abcd", torch.ones(5, dtype=torch.float64)), None)  # fmt: skip
    d = direction(imtl, case)
    along = torch.stack([(d * u).flatten(1).sum(1) for u in balance.directions(case.rows).values()])
    torch.testing.assert_close(along, along[:1].expand(4, -1), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(along[0], balance.lengths(d).square(), rtol=1e-6, atol=1e-9)


def test_imtl_says_that_it_takes_no_weights() -> None:
    case = three()
    with pytest.warns(UserWarning, match="imtl is impartial: all weights above 0 are alike"):
        imtl(case.rows, {**case.weights, "a": torch.full((1,), 0.5)}, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imtl(case.rows, {**case.weights, "a": torch.zeros(1)}, None)


@pytest.mark.parametrize("angle", [1e-9, 1e-7, 1e-5, 1e-3])
def test_imtl_of_nearly_opposite_rows_is_short(angle: float) -> None:
    a = torch.zeros(8, dtype=torch.float64)
    a[0] = 1.0
    b = -a.clone()
    b[1] = angle
    one = dict.fromkeys("ab", torch.ones(1, dtype=torch.float64))
    d = direction(imtl, Case({"a": a.view(1, *SHAPE), "b": b.view(1, *SHAPE)}, one, None))
    assert balance.lengths(d) <= angle


def test_sum_is_the_plain_weighted_sum() -> None:
    case = three()
    rows = {name: (i + 1) * g for i, (name, g) in enumerate(case.rows.items())}
    weights = {name: torch.full((1,), w) for name, w in zip("abc", (1.0, 0.5, 2.0), strict=True)}
    expected = rows["a"] + 0.5 * rows["b"] + 2 * rows["c"]
    close(plain_sum(rows, weights, torch.full((1, *SHAPE), 1e3)), expected)


def test_smooth_by_hand() -> None:
    memory: Memory = {}
    rule = Smooth(decay=0.5, clip=2.0).with_memory(memory)
    unit = torch.zeros(1, *SHAPE, dtype=torch.float64)
    unit[0, 0, 0, 0] = 1.0
    one = torch.ones(1, dtype=torch.float64)
    found = [
        rule({"a": size * unit}, {"a": one * (size > 0)}, unit).sum().item() for size in (4.0, 8.0, 0.0, 100.0, 1.0)
    ]
    # means: 4, 6, -, 53, 27; the third step is sat out
    assert found == pytest.approx([1.0, 8 / 6, 0.0, 100 / 53, 1 / 2])
    assert memory["balancer/a"].tolist() == [27.0]


def test_too_many_referees_are_refused() -> None:
    g = torch.ones(1, *SHAPE)
    for rule, most in ((pcgrad, 6), (mgda, MOST), (upgrad, MOST)):
        rows = {str(i): g for i in range(most + 1)}
        with pytest.raises(
            OptionError, match=f"balances at most {most} referees, not {most + 1}. Take --balancer norm"
        ):
            rule(rows, {name: torch.ones(1) for name in rows}, None)


def test_a_full_table_is_no_matter() -> None:
    g = torch.randn(2, MOST, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    case = Case({str(i): g[:, i] for i in range(MOST)}, {str(i): torch.ones(2) for i in range(MOST)}, None)
    hurts_none(upgrad, case)
    hurts_none(mgda, case)


# --- torchjd ----------------------------------------------------------------------------------------------------------


def exact(name: str) -> Any:
    """Where torchjd is right: solvers run to the end, regularised by next to nothing."""
    from torchjd import aggregation
    from torchjd.linalg import QuadprogProjector

    if name == "upgrad":
        return aggregation.UPGrad(projector=QuadprogProjector(norm_eps=0.0, reg_eps=1e-10))
    return {"mgda": aggregation.MGDA(1e-9, 20000), "imtl": aggregation.IMTLG()}[name]


@needs_torchjd
@pytest.mark.parametrize("name", ["upgrad", "mgda", "imtl"])
@pytest.mark.parametrize("r", [2, 3, 5])
def test_is_what_torchjd_finds(name: str, r: int) -> None:
    g = torch.randn(6, r, *SHAPE, generator=torch.Generator().manual_seed(r), dtype=torch.float64)
    case = Case({n: g[:, i] for i, n in enumerate(NAMES[:r])}, dict.fromkeys(NAMES[:r], torch.ones(6)), None)
    found = direction(PICKED[name][0], case)
    for i in range(6):
        units = torch.stack([u[i].flatten() for u in balance.directions(case.rows).values()])
        torch.testing.assert_close(
            found[i].flatten(), exact(name)(units), rtol=1e-3, atol=2e-3 if name == "mgda" else 1e-4
        )


@needs_torchjd
def test_pcgrad_is_torchjds_mean_over_its_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchjd.aggregation import PCGrad

    g = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    g[:, 2] -= g[:, 0] + g[:, 1]
    case = Case({n: g[:, i] for i, n in enumerate("abc")}, dict.fromkeys("abc", torch.ones(1)), None)
    units = torch.stack([u[0].flatten() for u in balance.directions(case.rows).values()])
    total = torch.zeros(8, dtype=torch.float64)
    for order in permutations(range(3)):
        monkeypatch.setattr(torch, "randperm", lambda n, order=order: torch.tensor(order))
        total += PCGrad()(units) / 6 / 3
    close(direction(pcgrad, case).flatten(), total)


ARGUMENTS: dict[str, dict[str, Any]] = {
    "CAGrad": {"c": 0.5},
    "Constant": {"weights": [0.5, 0.25, 0.25]},
    "FairGrad": {"alpha": 1.0},
    "Krum": {"n_byzantine": 0, "n_selected": 2},
    "NashMTL": {"n_tasks": 3},
    "TrimmedMean": {"trim_number": 1},
}
LISTED = [] if torchjd is None else library.names()


@needs_torchjd
def test_torchjds_aggregators_are_found() -> None:
    assert {"UPGrad", "MGDA", "PCGrad", "IMTLG", "CAGrad", "NashMTL", "AlignedMTL", "ConFIG", "GradDrop"} <= set(LISTED)
    assert not [name for name in LISTED if "Weight" in name]


@needs_torchjd
@pytest.mark.parametrize("name", LISTED)
def test_every_aggregator_of_torchjd_plays(name: str) -> None:
    try:
        rule = library.load(name, ARGUMENTS.get(name, {}))
    except ImportError as error:
        pytest.skip(str(error))
    g = torch.randn(2, 4, *SHAPE, generator=torch.Generator().manual_seed(2))
    rows = {n: 100.0**i * g[:, i] for i, n in enumerate("abc")}
    weights = {n: torch.ones(2) for n in rows}
    state = torch.random.get_rng_state()

    def play(rows: dict[str, Tensor], weights: dict[str, Tensor], pull: Tensor) -> list[Tensor]:
        run = rule.with_memory({})
        return [run(rows, weights, pull) for _ in range(3)]

    pushes = play(rows, weights, g[:, 3])
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's draws are changed
    for found in pushes:
        assert found.isfinite().all()
        assert found.dtype == torch.float32
        assert (balance.lengths(found) <= balance.lengths(g[:, 3]) * (1 + 1e-5)).all()
    again = play(rows, weights, g[:, 3])
    assert all(torch.equal(a, b) for a, b in zip(pushes, again, strict=True))  # a run anew is the same run
    alone = play({n: r[1:] for n, r in rows.items()}, {n: w[1:] for n, w in weights.items()}, g[1:, 3])
    for a, b in zip(pushes, alone, strict=True):
        torch.testing.assert_close(a[1:], b)


@needs_torchjd
def test_torchjd_by_name_is_what_the_library_gives() -> None:
    from torchjd.aggregation import AlignedMTL

    case = three()
    weights = {name: torch.full((1,), w) for name, w in zip("abc", (1.0, 0.5, 1.5), strict=True)}
    units = torch.stack([g.flatten() for g in case.rows.values()])
    expected = AlignedMTL()(units * torch.tensor([1.0, 0.5, 1.5])[:, None])
    assert expected.norm() < 1
    close(direction(library.load("AlignedMTL", {}), Case(case.rows, weights, None)).flatten(), expected)


@needs_torchjd
def test_torchjds_rows_without_weight_are_left_out() -> None:
    case = three()
    rows = {**case.rows, "bad": torch.full((1, *SHAPE), torch.nan)}
    rule = library.load("UPGrad", {})
    close(push(rule, Case(rows, {**case.weights, "bad": torch.zeros(1)}, None)), push(rule, case))
    none = {name: torch.zeros(1) for name in case.rows}
    assert (push(rule, Case(case.rows, none, None)) == 0).all()


@needs_torchjd
def test_torchjds_errors_say_what_to_write() -> None:
    with pytest.raises(OptionError, match=r"torchjd has no aggregator 'UpGrad'\. Did you mean 'UPGrad'"):
        library.load("UpGrad", {})
    with pytest.raises(
        OptionError, match=r"torchjd's TrimmedMean does not take these arguments: .*torchjd:CAGrad,arguments"
    ):
        library.load("TrimmedMean", {})
    with pytest.raises(PluginError, match="torchjd's Constant failed on 3 rows"):
        push(library.load("Constant", {"weights": [1.0, 2.0]}), three())


class Broken:
    def __call__(self, matrix: Tensor) -> Tensor:
        return matrix.sum(0) / 0


def test_an_aggregator_that_is_not_finite_is_told() -> None:
    with pytest.raises(PluginError, match="gave numbers that are not finite for 3 rows"):
        push(Torchjd("Broken", Broken()), three())


# --- in the loop ------------------------------------------------------------------------------------------------------

RULES = Rules(steps=12, tail=2, update="sgd", lr=0.3, prior_weight=0.3, noise=0.05, views=2)
SEATS = [Seat(c, ToyReferee(s), constant(w)) for c, s, w in (("a", 8, 1.0), ("b", 5, 0.5), ("c", 4, 2.0))]


def play(rule: Balancer, space: Any = "latent", memory: Memory | None = None, **more: Any) -> list[Step]:
    return list(
        invert(
            "red", more.get("seats", SEATS), ToyPrior(), rules=more.get("rules", RULES), augmentation=ToyAugmentation(),
            balancer=rule, space=space, seeds=more.get("seeds", (3, 8)), size=(12, 12), memory=memory,
        )
    )  # fmt: skip


@pytest.mark.parametrize("space", ["latent", "image"])
@pytest.mark.parametrize("name", PICKED)
@pytest.mark.filterwarnings("ignore:imtl is impartial")
def test_plays_a_run_in_either_space(name: str, space: str) -> None:
    rule = PICKED[name][0]
    steps = play(rule, space)
    assert all(step.z.isfinite().all() for step in steps)
    assert steps[9].losses["a"].mean() < steps[0].losses["a"].mean()
    for i, seed in enumerate((3, 8)):
        torch.testing.assert_close(play(rule, space, seeds=(seed,))[-1].z[0], steps[-1].z[i], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["norm", "mgda", "upgrad", "pcgrad", "imtl", "smooth"])
def test_with_one_referee_all_rules_are_one_in_either_space(name: str) -> None:
    expected = play(norm, seats=SEATS[:1])
    rule = Smooth(clip=1.0) if name == "smooth" else PICKED[name][0]
    for space in ("latent", "image"):
        for found, step in zip(play(rule, space, seats=SEATS[:1]), expected, strict=True):
            torch.testing.assert_close(found.z, step.z, rtol=1e-4, atol=1e-5)


def test_a_sum_is_the_same_in_either_space() -> None:
    for here, there in zip(play(plain_sum), play(plain_sum, "image"), strict=True):
        torch.testing.assert_close(here.z, there.z, rtol=1e-4, atol=1e-5)


def test_a_run_begins_afresh_and_its_memory_is_all_that_smooth_keeps() -> None:
    rule = Smooth(decay=0.5)
    first, second = play(rule), play(rule)
    assert all(torch.equal(a.z, b.z) for a, b in zip(first, second, strict=True))
    assert not rule.memory
    kept: Memory = {}
    assert torch.equal(play(rule, memory=kept)[-1].z, first[-1].z)
    assert set(kept) == {"balancer/a", "balancer/b", "balancer/c"}
    assert all(v.shape == (2,) for v in kept.values())
    assert not torch.equal(play(rule, memory=kept)[0].z, first[0].z)  # with a past, the first step is another


def test_what_is_kept_is_replaced_and_not_changed() -> None:
    """So a copy of the dictionary, taken at any step, is a snapshot that a run can go on from."""
    seats = [replace(seat, every=2) for seat in SEATS]
    memory: Memory = {}
    run = invert("red", seats, ToyPrior(), rules=RULES, balancer=Smooth(), seeds=(3, 8), size=(12, 12), memory=memory)
    for _ in range(4):
        next(run)
    snapshot = dict(memory)
    values = {name: kept.clone() for name, kept in snapshot.items()}
    list(run)
    assert set(snapshot) == {f"{who}/{name}" for who in ("panel", "balancer") for name in "abc"}
    assert all(torch.equal(snapshot[name], values[name]) for name in snapshot)
    assert not any(torch.equal(memory[name], values[name]) for name in snapshot)


# --- as a plug-in -----------------------------------------------------------------------------------------------------


def test_importing_the_plugin_imports_no_torch() -> None:
    code = "import sys, referee_balancers; assert not {'torch', 'torchjd', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover()


def test_rules_are_found_by_name(registry: Registry) -> None:
    assert set(PICKED) | {"torchjd"} <= set(registry.names("balancer"))
    for name, (rule, _) in PICKED.items():
        spec = registry.find("balancer", name)
        made = spec.factory(spec.options(), Place())
        assert made == rule or (name == "smooth" and isinstance(made, Smooth))
        assert getattr(made, "own_length", False) == (name == "sum")


def test_options_reach_the_rule(registry: Registry) -> None:
    spec = registry.find("balancer", "smooth")
    made = spec.factory(SmoothOptions(decay=0.5, clip=2), Place())
    assert (made.decay, made.clip) == (0.5, 2.0)


@needs_torchjd
def test_torchjd_is_made_by_name(registry: Registry) -> None:
    spec = registry.find("balancer", "torchjd")
    options = TorchjdOptions(name="TrimmedMean", arguments={"trim_number": 1})
    spec.check(options)
    assert spec.factory(options, Place()).name == "TrimmedMean"


def test_without_torchjd_the_command_that_installs_it_is_said(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("referee_balancers.options.find_spec", lambda name: None)
    with pytest.raises(PluginError, match=r"pip install 'vlm-referee\[torchjd\]'"):
        registry.find("balancer", "torchjd").check(TorchjdOptions(name="UPGrad"))


@pytest.mark.parametrize(
    ("typed", "name", "options"),
    [
        ("torchjd:UPGrad", "torchjd", {"name": "UPGrad"}),
        ("torchjd:CAGrad,arguments={c=0.5}", "torchjd", {"name": "CAGrad", "arguments": {"c": 0.5}}),
        ("torchjd:name=UPGrad", "torchjd", {"name": "UPGrad"}),
        ("vlm-referee:pcgrad", "vlm-referee:pcgrad", {}),
    ],
)
def test_an_aggregator_is_typed_by_its_name(typed: str, name: str, options: dict[str, object]) -> None:
    asked = settings_of(discover(), None, "pocket", None, None, balancer=typed)
    assert asked.balancer is not None
    assert (asked.balancer.name, asked.balancer.options) == (name, options)


def test_what_follows_a_balancers_colon_are_options() -> None:
    with pytest.raises(PluginError, match="what follows the colon of the balancer 'pcgrad' are options, key=value"):
        discover().find("balancer", "pcgrad:x")
