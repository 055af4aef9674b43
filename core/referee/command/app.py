"""The command: `referee generate | resume | sample | score | plan | report | bench | plugins | zoo | convert | doctor`.

Each turns words into settings and shows what comes of them; it computes nothing. Bad input ends with one clear sentence
and exit code 2, before any model loads and with nothing written. What stops a run is in `referee.command.running`.
"""

from __future__ import annotations

import os
import sys
import warnings

import typer

from referee.command import bench, convert, crash, plugins, zoo
from referee.command.doctor import doctor
from referee.command.draw import generate, sample, score
from referee.command.plan import plan
from referee.command.report import report
from referee.command.resume import resume
from referee.command.stops import INTERRUPTED, stoppable
from referee.errors import RefereeError, out_of_memory, short_of_memory, shown

app = typer.Typer(
    help="Pictures by model inversion: a latent is optimised until frozen referees agree that it matches the prompt.",
    epilog='Example: referee generate "a red circle and a blue striped square" --referee blip2 --referee clip\n\n'
    "Exit codes: 0 done; 1 failed on the way (what is kept is said), a bug, or `referee doctor` found a fault; "
    "2 refused, and nothing was written; 130 stopped by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP: the best pictures so "
    "far were written, and `referee resume` goes on.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (generate, resume, sample, score, plan, report, doctor):
    app.command()(command)
for name, group in (("bench", bench.app), ("plugins", plugins.app), ("zoo", zoo.app), ("convert", convert.app)):
    app.add_typer(group, name=name)


def main() -> None:
    """Run the command; a RefereeError becomes one sentence and exit code 2."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    # What a plug-in warns of (the end of a prompt that it does not read) is for the person, not for a developer.
    warnings.showwarning = lambda message, *_, **__: print(f"referee: {shown(str(message))}", file=sys.stderr)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        with stoppable() as stop:
            app(prog_name="referee")  # however it was called: Tab asks by this name
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer's answer to all of them
            sys.exit(stop.code)
        raise
    except RefereeError as error:
        print(f"referee: {error}", file=sys.stderr)
        if error.__cause__ is not None and (said := crash.blame(error)):
            print(f"referee: {said}", file=sys.stderr)
        sys.exit(2)
    except BaseException as error:  # a stranger's part may raise anything
        if out_of_memory(error):
            print(f"referee: {short_of_memory(error)}", file=sys.stderr)
            sys.exit(2)
        sys.exit(crash.report(error))
