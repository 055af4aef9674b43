"""`referee convert`: a checkpoint as others publish it becomes a folder that a plug-in loads.

The converters are those of the plug-ins, see `referee.hooks.ConverterSpec`; this file turns their options into a
command, and sees to it that a folder is written whole or not at all.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic.fields import FieldInfo
from typer.core import TyperGroup

from referee.command.flags import open_registry
from referee.errors import OutputError, PluginError

if TYPE_CHECKING:
    from referee.hooks import ConverterSpec
    from referee.plugins import Registry


class Converters(TyperGroup):
    """The commands below `referee convert`: one for each converter of the plug-ins, looked up when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all converters, as they can be asked for: by distribution, too, where two have one name."""
        offers = [
            (plugin.distribution, name)
            for plugin in _registry(ctx).plugins
            for kind, name in plugin.offers
            if kind == "converter"
        ]
        names = [name for _, name in offers]
        return sorted({name if names.count(name) == 1 else f"{owner}:{name}" for owner, name in offers})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The converter as a command; PluginError if there is none, or two, of that name."""
        return _command(_registry(ctx).find("converter", cmd_name), cmd_name)


app = typer.Typer(
    cls=Converters,
    epilog="Example: referee convert blip2 --lavis blip2_pretrained.pth --out blip2",
    no_args_is_help=True,
    rich_markup_mode="rich",
    subcommand_metavar="NAME ...",
)


@app.callback()
def _convert(
    block: Annotated[
        list[str] | None,
        typer.Option("-p", metavar="no:NAME", is_eager=True, help="Leave a plug-in unloaded; repeat for more."),
    ] = None,
    no_plugins: Annotated[bool, typer.Option("--no-plugins", is_eager=True, help="Load no installed plug-in.")] = False,
    plugin: Annotated[
        list[Path] | None,
        typer.Option("--plugin", metavar="FILE.py", is_eager=True, help="A single file as a plug-in; its code runs."),
    ] = None,
) -> None:
    """Make a checkpoint that others publish into a folder that a plug-in loads."""


def _registry(ctx: Any) -> Registry:
    if ctx.obj is None:
        given = ctx.params  # eager, so that --help knows of them
        ctx.obj = open_registry(given.get("block"), bool(given.get("no_plugins")), given.get("plugin"))
    registry: Registry = ctx.obj
    return registry


def _command(spec: ConverterSpec, name: str) -> Any:
    """A command with an option for each field. Values stay text here: pydantic reads them, as it does elsewhere."""

    def run(out: Path, **given: str | None) -> None:
        convert(spec, {name: text for name, text in given.items() if text is not None}, out)
        print(out)

    options = {name: _option(name, field) for name, field in spec.options.model_fields.items()}
    place = typer.Option("--out", metavar="DIR", help="The folder to make; it must not hold anything.")
    options["out"] = Parameter("out", Parameter.KEYWORD_ONLY, annotation=Annotated[Path, place])
    run.__signature__ = Signature(list(options.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in options.items()}
    leaf = typer.Typer(add_completion=False, rich_markup_mode="rich")
    leaf.command(name, help=spec.summary)(run)
    return typer.main.get_command(leaf)


def _option(name: str, field: FieldInfo) -> Parameter:
    default = "" if field.default is None or field.is_required() else f" [dim]default: {field.default}[/dim]"
    text = f"{field.description or ''}{default}{' [dim]required[/dim]' if field.is_required() else ''}"
    about = typer.Option("--" + name.replace("_", "-"), metavar="VALUE", help=text, show_default=False)
    return Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, about])


def convert(spec: ConverterSpec, given: Mapping[str, Any], out: Path) -> None:
    """Check the options, run the converter, and give its folder the name it was asked for.

    Raises:
        OptionError: an option is unknown, missing or wrong.
        OutputError: out is a file or holds something, or cannot be written to.
        PluginError: the converter needs a library that is not there.
        RefereeError: whatever else the converter refuses.
    """
    from referee.options import validate

    options = validate(spec.options, given, f"converter '{spec.name}'")
    check_free(out)
    if spec.check:
        spec.check(options)
    with new_folder(out) as folder:
        _run(spec.convert, options, folder)


def _run(function: Callable[[Any, Path], None], options: Any, folder: Path) -> None:
    try:
        function(options, folder)
    except ImportError as error:
        library = (error.name or "").partition(".")[0]
        raise PluginError(f"This needs {library or 'a library'}: {error}. Try: pip install {library}") from error


def check_free(out: Path) -> None:
    """Refuse a folder that cannot be made without touching what is there. Makes nothing.

    Raises:
        OutputError: see above.
    """
    above = out.absolute().parent
    try:
        if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
            raise OutputError(f"--out {out}: there is something already. Choose another folder, or remove it.")
        while not above.exists() and above.parent != above:
            above = above.parent
        if not above.is_dir():
            raise OutputError(f"--out {out}: {above} is a file, not a folder.")
    except OSError as error:  # a name too long, a folder that may not be looked into
        raise OutputError(f"--out {out}: {error.strerror or error}. Choose another --out.") from error
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"--out {out}: {above} cannot be written to. Choose another --out.")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that is renamed to ``out`` at the end; after an error, or Ctrl-C, nothing is left of it.

    Raises:
        OutputError: the disk is full, or the folder cannot be written to.
    """
    temporary = out.absolute().with_name(f".{out.absolute().name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        if out.is_dir():
            out.rmdir()  # empty, or else this stops here
        temporary.replace(out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
