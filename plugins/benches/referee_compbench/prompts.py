"""Reading the official prompt files; none of them comes with this package.

T2I-CompBench keeps all of its files in one folder (``examples/dataset``); here they may also lie in ``val/`` and
``complex_parts/`` below it. GenEval keeps one JSON object per line.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from referee.errors import OptionError, PromptError
from referee.prompt import Prompt
from referee_compbench.geneval import Task
from referee_compbench.options import CompBenchOptions
from referee_compbench.scores import key

BELOW = ("", "val", "complex_parts")
MOST_BYTES = 10_000_000
_MEND = (
    "t2i-compbench:path=FOLDER wants the folder examples/dataset of the benchmark's repository, "
    "https://github.com/Karine-Huang/T2I-CompBench, with color_val.txt and its like."
)
_MEND_GENEVAL = (
    "geneval:path=FILE wants prompts/evaluation_metadata.jsonl of the benchmark's repository, "
    "https://github.com/djghosh13/geneval."
)


def read_suites(options: CompBenchOptions) -> dict[str, list[str]]:
    """All prompts of each suite that is asked for, in the file's order.

    Raises:
        OptionError: a file is missing, empty, too large, or is no text of one prompt a line.
    """
    paths: dict[str, Path] = {
        suite: find(options.path, f"{suite}_val.txt") for suite in options.suites if suite != "color"
    }
    if "color" in options.suites:
        paths["color"] = options.colors or find(options.path, "color_val.txt")
    return {suite: read_lines(paths[suite]) for suite in options.suites}


def read_routes(options: CompBenchOptions) -> tuple[frozenset[str], frozenset[str]]:
    """Which prompts of "complex" are about a place, and which about an action, see `referee_compbench.scores.route`.

    Raises:
        OptionError: as `read_suites`.
    """
    names = ("complex_val_spatial.txt", "complex_val_action.txt")
    spatial, action = (frozenset(map(key, read_lines(find(options.path, name)))) for name in names)
    return spatial, action


def find(folder: Path, name: str) -> Path:
    """A file of the benchmark.

    Raises:
        OptionError: there is none of that name.
    """
    folder = folder.expanduser()
    found = next((path for below in BELOW if (path := folder / below / name).is_file()), None)
    if found is None:
        what = f"has no {name}" if folder.is_dir() else "is no folder"
        raise OptionError(f"{folder} {what}. {_MEND}")
    return found


def read_lines(path: Path) -> list[str]:
    """The prompts of a text file: one a line; spaces around them and empty lines do not count.

    Raises:
        OptionError: it is missing, has no prompts, or something that is no prompt; names the line.
    """
    lines = [(number, line.strip()) for number, line in enumerate(_text(path, _MEND).splitlines(), 1)]
    for number, line in lines:
        if not line:
            continue
        try:
            Prompt(line)
        except PromptError as error:
            raise OptionError(f"{path}, line {number}, is no prompt: {error} {_MEND}") from error
        if line[0] in "{[" or "/" in line or "_" in line:  # JSON; or what a picture's name could not hold
            raise OptionError(f"{path}, line {number}, is no prompt of the benchmark: {line[:80]!r}. {_MEND}")
    if not (prompts := [line for _, line in lines if line]):
        raise OptionError(f"{path} has no prompts. {_MEND}")
    return prompts


def read_tasks(path: Path) -> list[Task]:
    """GenEval's prompts, in the file's order.

    Raises:
        OptionError: the file is missing, has no prompts, or a line that is none; names the line.
    """
    tasks = []
    for number, line in enumerate(_text(path, _MEND_GENEVAL).splitlines(), 1):
        if not line.strip():
            continue
        try:
            tasks.append(Task.model_validate_json(line))
            Prompt(tasks[-1].prompt)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise OptionError(
                f"{path}, line {number}, is no prompt of GenEval: {where + ': ' if where else ''}{first['msg']}. "
                + _MEND_GENEVAL
            ) from error
        except PromptError as error:
            raise OptionError(f"{path}, line {number}, is no prompt: {error} {_MEND_GENEVAL}") from error
    if not tasks:
        raise OptionError(f"{path} has no prompts. {_MEND_GENEVAL}")
    return tasks


def _text(path: Path, mend: str) -> str:
    path = path.expanduser()
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise OptionError(f"{path} has {size:,} bytes; a file of prompts has fewer. {mend}")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise OptionError(f"{path} is no text: {error}. {mend}") from error
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror or error}. {mend}") from error
