"""From settings to parts: the one place where names become objects.

In two strokes. `check` looks at everything that can be looked at for nothing: names, options, files, words, sizes; it
imports no torch. `assemble` then calls the factories. So bad input is refused before any model loads.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from referee import zoos
from referee.control.init_image import Begun, open_init
from referee.errors import OptionError, PluginError, RefereeError, where
from referee.hooks import Checkpoint, Place, Spec, ZooSpec
from referee.options import validate
from referee.plugins import Kind, Registry
from referee.prompt import Prompt
from referee.settings import JudgePart, Part, RefereePart, Settings
from referee.typed import own_keys

if TYPE_CHECKING:
    from referee.contract import Augmentation, Balancer, Prior
    from referee.judging import Judge
    from referee.panel import Space
    from referee.rules import Rules
    from referee.seat import Seat


@dataclass(frozen=True, slots=True)
class Order:
    """One part as ordered: its spec and its checked options; nothing is loaded yet."""

    part: Part
    spec: Spec
    options: BaseModel
    aug: Order | None = None
    """A referee's own augmentation."""

    def make(self, place: Place) -> Any:
        """Call the factory."""
        return self.spec.factory(self.options, place)


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings that were checked, with every part's order; and the files that they name, read."""

    settings: Settings
    referees: tuple[Order, ...]
    prior: Order | None
    augmentation: Order | None
    balancer: Order | None
    zoo: ZooSpec | None
    judge: Order | None = None
    begun: Begun | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """All that `referee.invert` needs but the prompt and the seeds; loaded once, played as often as one likes."""

    seats: tuple[Seat, ...]
    prior: Prior
    augmentation: Augmentation | None
    balancer: Balancer
    rules: Rules
    size: tuple[int, int]
    device: str
    space: Space = "latent"
    judge: Judge | None = None

    @property
    def first_step(self) -> int:
        """The step, from 0, at which a run enters: later than 0 if it begins with a picture."""
        from referee.control.canvas import Canvas

        return self.rules.first_step(self.prior.strength) if isinstance(self.prior, Canvas) else 0


def check(settings: Settings, registry: Registry, prompt: Prompt | None = None) -> Plan:
    """Look everything up and look everything over; load nothing.

    Raises:
        PluginError: a name is unknown, failed to load, or stands for two plug-ins.
        OptionError: an option is unknown or wrong.
        PromptError: the zoo cannot draw the prompt or read a text of the options, a referee cannot judge by its prompt,
            or that is none.
        WeightsError: a checkpoint is missing or cut short.

    Warns:
        UserWarning: the judge is of a referee's family.

    Returns:
        What `assemble` takes. Its settings are the given ones, and say which files they are of: see `open_init`.
    """
    zoo: ZooSpec | None = registry.find("zoo", settings.zoo) if settings.zoo else None
    shelf = tuple(zoo.checkpoints()) if zoo else ()
    plan = ordered(settings, registry, shelf, zoo)
    own_augs = (order.aug for order in plan.referees)
    everyone = (*plan.referees, *own_augs, plan.prior, plan.augmentation, plan.balancer, plan.judge)
    orders = [order for order in everyone if order]
    readers: list[RefereePart | JudgePart] = [*settings.referees, *([settings.judge] if settings.judge else [])]
    said = [Prompt(part.prompt).text for part in readers if part.prompt is not None]
    said += [text for order in orders if order.spec.words for text in order.spec.words(order.options)]
    for text in said if prompt is None else [prompt.text, *said]:
        if zoo and zoo.check_prompt:
            zoo.check_prompt(text)
    for part, order in zip(readers, [*plan.referees, *([plan.judge] if plan.judge else [])], strict=True):
        own = Prompt(part.prompt) if part.prompt is not None else prompt
        if order.spec.check_prompt and own:
            order.spec.check_prompt(own.text)
    for checkpoint in zoos.needed(shelf, [(order.spec.name, order.part.options) for order in orders]):
        zoos.require(checkpoint)
    for order in orders:
        if order.spec.check:
            order.spec.check(order.options)
    if kin := _kin(plan):
        warnings.warn(of_kin(settings.judge.title if settings.judge else "", kin), stacklevel=2)
    if settings.init is None:
        return plan
    begun = open_init(settings.init, settings.height, settings.width)
    return replace(plan, settings=settings.model_copy(update={"init": begun.init}), begun=begun)


def _kin(plan: Plan) -> list[str]:
    """The referees that share a family with the judge."""
    if plan.judge is None:
        return []
    own = families(plan.judge.spec)
    seats = zip(plan.settings.referees, plan.referees, strict=True)
    return [part.title for part, order in seats if families(order.spec) & own]


def families(spec: Spec) -> set[str]:
    """Those that a part says it is of; else it is one of its own."""
    return set(spec.families or (spec.name,))


def of_kin(judge: str, referees: Sequence[str]) -> str:
    """The warning of a judge that is no outsider."""
    names = " and ".join(f"'{name}'" for name in referees)
    return (
        f"The judge '{judge}' is of the same family as {names}: a picture that fools one may well fool the other. "
        "Take a judge of another family."
    )


def ordered(settings: Settings, registry: Registry, shelf: Sequence[Checkpoint], zoo: ZooSpec | None) -> Plan:
    """Look names and options up, and no file.

    Raises:
        PluginError, OptionError: as `check`.
    """
    return Plan(
        settings,
        tuple(_seat_order(part, registry, shelf) for part in settings.referees),
        _order("prior", settings.prior, registry, shelf) if settings.prior else None,
        _order("augmentation", settings.augmentation, registry, shelf) if settings.augmentation else None,
        _order("balancer", settings.balancer, registry, shelf) if settings.balancer else None,
        zoo,
        _order("referee", settings.judge, registry, shelf) if settings.judge else None,
    )


def _order(kind: Kind, part: Part, registry: Registry, shelf: Sequence[Checkpoint]) -> Order:
    spec: Spec = registry.find(kind, part.name)
    values = zoos.options_of(shelf, spec.name) | zoos.resolve(shelf, part.options)
    return Order(part, spec, validate(spec.options, values, f"{kind} '{part.name}'", own_keys(type(part))))


def _seat_order(part: RefereePart, registry: Registry, shelf: Sequence[Checkpoint]) -> Order:
    own = _order("augmentation", part.aug, registry, shelf) if isinstance(part.aug, Part) else None
    return replace(_order("referee", part, registry, shelf), aug=own)


def assemble(plan: Plan, *, weights: bool = True) -> Parts:
    """Call the factories: models load here; or, without weights, are built and hold random numbers.

    Raises:
        OptionError: there is no prior to own the latent space, or the size or device does not fit.
        PluginError: a factory needs a library that is not there, fails, or makes something of another kind.
    """
    from referee import balance
    from referee.contract import Augmentation, Balancer, Prior

    settings = plan.settings
    if plan.prior is None:
        raise OptionError("No prior is named, and it owns the latent space: add --prior NAME or a preset that has one.")
    place = Place(device_name(settings.device), settings.dtype, weights)
    balancer = (
        make(plan.balancer, place, Balancer) if plan.balancer else balance.norm
    )  # no model: its errors come first
    prior = make(plan.prior, place, Prior)
    size = (settings.height, settings.width)
    prior.latent_shape(*size)
    if plan.begun:
        from referee.control.canvas import canvas

        prior = canvas(prior, plan.begun.picture, plan.begun.mask, plan.begun.init.share, place.device)
    return Parts(
        seats=seats_of(plan, weights=weights),
        prior=prior,
        augmentation=make(plan.augmentation, place, Augmentation) if plan.augmentation else None,
        balancer=balancer,
        rules=settings.rules,
        size=size,
        device=place.device,
        space=settings.balancer.space if settings.balancer else "latent",
        judge=_judge(plan, place),
    )


def _judge(plan: Plan, place: Place) -> Judge | None:
    from referee.contract import Referee
    from referee.holdings import send_home
    from referee.judging import Judge

    part = plan.settings.judge
    if part is None or plan.judge is None:
        return None
    own = Prompt(part.prompt) if part.prompt is not None else None
    referee = make(plan.judge, place, Referee)
    if part.offload and place.weights:
        send_home(referee)
    return Judge(part.title, referee, part.every, part.keep, part.patience, own, part.pick, part.offload, part.timeout)


def seats_of(plan: Plan, *, weights: bool = True) -> tuple[Seat, ...]:
    """Load the referees alone, as `referee score` needs them."""
    from referee.contract import Augmentation, Referee
    from referee.holdings import send_home
    from referee.seat import Seat

    place = Place(device_name(plan.settings.device), plan.settings.dtype, weights)
    shared: dict[str, Referee] = {}

    def referee(part: RefereePart, order: Order) -> Referee:
        """Seats that see a region share the model of one with equal options: referees are frozen."""
        key = f"{order.spec.name} {order.options!r} {part.offload}"
        if part.region and key in shared:
            return shared[key]
        found: Referee = make(order, place, Referee)
        if part.offload and weights:
            send_home(found)  # before the next one loads
        return shared.setdefault(key, found)

    def seat(part: RefereePart, order: Order) -> Seat:
        own = make(order.aug, place, Augmentation) if order.aug else None
        return Seat(
            part.title, referee(part, order), part.weight, part.start, part.until, part.views,
            own if part.aug else "shared", Prompt(part.prompt) if part.prompt is not None else None,
            part.negative, part.margin, part.every, part.between, part.timeout, part.offload, part.region,
        )  # fmt: skip

    return tuple(seat(part, order) for part, order in zip(plan.settings.referees, plan.referees, strict=True))


def make(order: Order, place: Place, kind: type) -> Any:
    """Call a factory; whatever it raises, but a RefereeError of its own, becomes one that names the part."""
    name = order.part.name
    try:
        made = order.make(place)
    except RefereeError:
        raise
    except ImportError as error:
        library = (error.name or "").partition(".")[0]
        mend = f" Try: pip install {library}" if library else ""
        raise PluginError(
            f"'{name}' needs {library or 'a library'} that is not installed or does not import: {error}.{mend}"
        ) from error
    except Exception as error:
        raise PluginError(
            f"'{name}' could not be made: {where(error)}. `referee plugins show {name}` says whose it is."
        ) from error
    if not isinstance(made, kind):
        raise PluginError(
            f"'{name}' is offered as a {kind.__name__.lower()} and made a {type(made).__name__}, which is none: see "
            f"{kind.__module__}.{kind.__name__} for what it needs."
        )
    return made


def device_name(wanted: str) -> str:
    """A device of this machine by name; "auto" takes cuda if there is one. Nothing was tried on mps: it must be named.

    Raises:
        OptionError: there is no such device here.
    """
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise OptionError(f"The device '{wanted}' cannot be used here: {str(error).splitlines()[0]}") from error
    return wanted
