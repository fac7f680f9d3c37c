"""The Typer application ``staanet``, and the decorator that registers a function as a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from staanet.cli.error_boundary import error_boundary
from staanet.cli.options import Output, expand

app = typer.Typer(
    name="staanet",
    help="Measure how easily an audio classifier is fooled by sparse adversarial changes "
    "(STAA-Net, arXiv 2402.01227), on your own models and data.\n\n"
    "Start with: staanet attack my.wav --out fooled",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(is_set: bool) -> None:
    if is_set:
        from importlib.metadata import version

        print(f"staanet {version('staanet')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Takes the options before the command; the help text is that of ``app``."""


def command(name: str, example: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns a decorator that registers a function as the command ``name``.

    A parameter that is a dataclass becomes an option for each of its fields. An error is printed as one
    line or as JSON, and sets the exit code. ``--help`` ends with ``example``.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        signature = expand(function)

        def run(**values: Any) -> Any:
            flags = {key.partition("__")[2]: value for key, value in values.items() if "__" in key}
            output = Output(json=flags["json"], debug=flags["debug"])
            with error_boundary(output):
                return function(**signature.arguments(values, name))

        run.__name__ = function.__name__
        run.__doc__ = f"{inspect.getdoc(function)}\n\nExample: {example}"
        run.__signature__ = inspect.Signature(signature.parameters)  # type: ignore[attr-defined]
        app.command(name)(run)
        return function

    return register
