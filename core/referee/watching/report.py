"""A run on one page: the picture first, its way as a scrubber, curves, settings, and the command that repeats it.

The page is one file that needs no network and runs no script but its own: whatever a prompt says is escaped, and the
page's own security policy would not run it either.
"""

from __future__ import annotations

import shlex
from base64 import b64encode
from collections.abc import Iterator, Sequence
from hashlib import sha256
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from referee.errors import OptionError, OutputError, RunError
from referee.folder.film import LOSSLESS, encode
from referee.folder.record import write_whole
from referee.folder.run import MAX_FILM, Row, Run, read_plain
from referee.layers import MAX_TOML
from referee.watching.absent import sat_out, silent, told
from referee.watching.curves import Curve, number, svg

MARK = b'<meta name="generator" content="referee">'
NAME = "report.html"
MAX_FILM_BYTES = 1 << 25
MOST = 4
"""Pictures whose maps are shown."""
RULES = ("steps", "tail", "update", "lr", "referee_weight", "prior_weight", "noise", "ema_decay", "views")


def write_report(path: Path, runs: Sequence[Run]) -> None:
    """Write the page. An older report is replaced, another file is not.

    Raises:
        OutputError: something else lies there, or it cannot be written.
        RunError: a run's picture or film is broken.
    """
    try:
        if path.is_dir() or (path.is_file() and MARK not in path.open("rb").read(2000)):
            raise OutputError(f"{path} is there already and no report. Choose another --out.")
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}. Choose another --out.") from error
    write_whole(path, page(runs).encode())


def page(runs: Sequence[Run]) -> str:
    """The page as HTML.

    Raises:
        OptionError: there is no run to show.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    if not runs:
        raise OptionError("No run is named: there is nothing to report.")
    folder = files("referee") / "templates"
    html, style, script = ((folder / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    title = f"{runs[0].prompt.text} · referee" if len(runs) == 1 else f"{len(runs)} runs · referee"
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(html)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    return template.render(
        title=title, style=Markup(style), script=Markup(script), script_hash=f"sha256-{digest}",
        runs=[_view(run) for run in runs],
    )  # fmt: skip


def _stopped(run: Run) -> str:
    if run.about.unfinished:
        return f"Not finished: {len(run.metrics)} steps so far."
    return "" if run.complete else f"Stopped after {run.about.interrupted_after} steps: the best so far."


def _judge(run: Run) -> str:
    return f"judge {run.settings.judge.title}" if run.settings.judge else "judge"


def _short(run: Run) -> Iterator[str]:
    for name, views in run.about.at_once.items():
        yield f"Memory ran out: '{name}' scored {views} view{'s' * (views > 1)} at once."


def _hacking(run: Run) -> str:
    """Where reward hacking was found; "" if nowhere."""
    found = [
        f"seed {seed} after step {row.step + 1}"
        for row in run.metrics
        for seed, hacked in zip(run.seeds, row.hacked or (), strict=False)
        if hacked
    ]
    if not found:
        return ""
    return f"Reward hacking: the referees like the picture ever better, the judge ever less. {', '.join(found)}."


def _judged(run: Run) -> Iterator[str]:
    """What came of the judge, in sentences."""
    judged = run.about.judge
    if judged is None:
        return
    if judged.ended is not None:
        yield f"Ended after {judged.ended} steps, as the judge saw no picture get better."
    taken = ", ".join(f"seed {seed} after {k} steps" for seed, k in zip(run.seeds, judged.taken, strict=False))
    yield f"Taken: {taken}."
    if judged.picked is not None:
        yield f"Picked: seed {judged.picked}."


def _view(run: Run) -> dict[str, Any]:
    """What the template shows of a run; text is escaped there, and only there."""
    from markupsafe import Markup

    charts, norms = (
        [
            {"title": c.title, "note": c.note, "last": c.last, "svg": Markup(svg(c, run.settings.rules.steps))}
            for c in curves
            if c.points
        ]
        for curves in (_verdicts(run), _gradients(run))
    )
    size, rules = f"{run.settings.width} × {run.settings.height}", run.settings.rules
    seeds = f"seed {run.seeds[0]}" if len(run.seeds) == 1 else f"{len(run.seeds)} seeds from {run.seeds[0]}"
    zoo = f" · {run.settings.zoo} zoo" if run.settings.zoo else ""
    who = " + ".join(part.title for part in run.settings.referees) or "the prior alone"
    steps = f"{rules.steps} steps" if run.about.command == "generate" else "plain sampling"
    pictures = [_picture(run, seed) for seed in run.pictures]
    absent = [*told(sat_out((row.norms, row.sat_out) for row in run.metrics)), *_silent(run)]
    return {
        "prompt": run.prompt.text,
        "facts": f"{who} · {steps} · {size} pixels · {seeds}{zoo}",
        "short": f"{seeds} · {who}",
        "warnings": [said for said in (_stopped(run), *_short(run), *absent, _hacking(run)) if said],
        "judged": list(_judged(run)),
        "pictures": pictures,
        "frames": run.about.frames if any(picture["film"] for picture in pictures) else (),
        "steps": rules.steps,
        "referees": [{"name": name, **_ends(run.metrics, name)} for name in _names(run.metrics)],
        "charts": charts,
        "norms": norms,
        "maps": [
            {"name": name, "seed": seed, "source": _uri(encode(found)), "small": max(found.size) <= LOSSLESS}
            for seed in list(run.pictures)[:MOST]
            for name, found in run.maps(seed).items()
        ],
        "files": sorted({part.distribution for part in run.about.parts if part.distribution.endswith(".py")}),
        "command": f"referee {run.about.command} --config {shlex.quote(str(run.folder / 'run.toml'))}",
        "settings": list(_settings(run)),
        "made_with": list(_made_with(run)),
        "toml": read_plain(run.folder / "run.toml", MAX_TOML).decode(errors="replace"),
    }  # fmt: skip


def _silent(run: Run) -> Iterator[str]:
    """Of a run that played to its end."""
    if run.about.command != "generate" or len(run.metrics) < run.settings.rules.steps:
        return iter(())
    return silent((part.title for part in run.settings.referees), (row.norms for row in run.metrics))


def _picture(run: Run, seed: int) -> dict[str, Any]:
    image = run.picture(seed)
    small = max(image.size) <= LOSSLESS
    source = _uri(encode(image))
    return {
        "seed": seed, "wide": image.width, "high": image.height, "small": small, "source": source,
        "film": _film(run, seed),
    }  # fmt: skip


def _film(run: Run, seed: int) -> str:
    """A film as it lies on the disk; "" if there is none."""
    path, count = run.folder / f"frames-{seed}.webp", len(run.about.frames)
    if not count or not path.is_file() or path.is_symlink():
        return ""
    content = read_plain(path, MAX_FILM_BYTES)
    try:
        with Image.open(BytesIO(content), formats=["WEBP"]) as film:
            fits = max(film.size) <= MAX_FILM and film.height % count == 0
    except Exception as error:  # for a stranger's file a decoder may raise anything
        raise RunError(f"{path} cannot be read as WEBP: {error}.") from error
    if not fits:
        raise RunError(f"{path} does not hold {count} frames.")
    return _uri(content)


def _uri(webp: bytes) -> str:
    return f"data:image/webp;base64,{b64encode(webp).decode()}"


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.losses))


def _ends(rows: Sequence[Row], name: str) -> dict[str, str]:
    """A referee's mean loss when it first and last played."""
    means = [sum(v) / len(v) for row in rows if (v := [x for x in row.losses.get(name, ()) if x is not None])]
    return {"first": number(means[0]) if means else "–", "last": number(means[-1]) if means else "–"}


def _verdicts(run: Run) -> Iterator[Curve]:
    """What the referees say, and how far they agree."""
    for name in _names(run.metrics):
        yield Curve(name, "loss", {row.step: row.losses[name] for row in run.metrics if name in row.losses})
    if said := {row.step: row.judge for row in run.metrics if row.judge is not None}:
        yield Curve(_judge(run), "loss of the judge, which moves nothing", said)
    if len(_names(run.metrics)) > 1:
        agreed = {row.step: row.agreement for row in run.metrics if row.agreement is not None}
        yield Curve("agreement", "of the referees: 1 unanimous, 0 deadlock", agreed, (0.0, 1.0))


def _gradients(run: Run) -> Iterator[Curve]:
    """How hard each of them pulls."""
    for name in dict.fromkeys(name for row in run.metrics for name in row.norms):
        note = "length of its pull on the latent" if name == "prior" else "length of its gradient"
        yield Curve(name, note, {row.step: row.norms[name] for row in run.metrics if name in row.norms})
    for pair in dict.fromkeys(pair for row in run.metrics for pair in row.cosines or ()):
        angles = {row.step: row.cosines[pair] for row in run.metrics if row.cosines and pair in row.cosines}
        yield Curve(pair, "cosine of the two: 1 the same way, -1 against each other", angles, (-1.0, 1.0))


def _settings(run: Run) -> Iterator[tuple[str, str]]:
    rules = run.settings.rules
    if run.about.command == "generate":
        for field in RULES:
            yield field.replace("_", " "), str(getattr(rules, field))
    if (init := run.settings.init) and run.about.command == "generate":
        masked = f", masked by {init.mask}" if init.mask else ""
        yield "begins with", f"{init.image}, strength {init.share:g}{masked}"
    for part in run.settings.referees:
        seen = f", sees {part.region}, wants {part.prompt or 'the same'}" if part.region else ""
        yield f"referee {part.title}", _options(part.options, f"weight {part.weight}{seen}")
    for kind, one in (("prior", run.settings.prior), ("augmentation", run.settings.augmentation)):
        if one:
            yield f"{kind} {one.name}", _options(one.options)
    if judge := run.settings.judge:
        yield f"judge {judge.title}", _options(judge.options, f"every {judge.every} steps, keeps the {judge.keep}")
    if run.settings.balancer:
        yield f"balancer {run.settings.balancer.name}", _options(run.settings.balancer.options)


def _options(options: dict[str, Any], first: str = "") -> str:
    told = [first] if first else []
    return ", ".join([*told, *(f"{name} {value}" for name, value in options.items())]) or "as it comes"


def _made_with(run: Run) -> Iterator[tuple[str, str]]:
    about = run.about
    for part in about.parts:
        yield f"{part.kind} {part.name}", f"{part.distribution} {part.version}".strip()
    for name, value in (("device", about.device), ("platform", about.platform), ("python", about.python)):
        if value:
            yield name, value
    yield from about.libraries.items()
    for name, digest in about.weights.items():
        yield name, f"sha256 {digest[:12]}…"
