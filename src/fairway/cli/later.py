"""Verbs that belong to the grammar and whose engine this version does not have: they say so, and do nothing."""

from typing import Annotated

import typer

from fairway import __version__
from fairway.errors import UsageError

_Anything = Annotated[list[str] | None, typer.Argument(metavar="...")]
_SETTINGS = {"ignore_unknown_options": True, "allow_extra_args": True}

VERBS = {
    "score": "Predictions for a whole table",
    "import": "A model from elsewhere",
    "export": "All of a model to take away",
}


def missing(what: str) -> UsageError:
    """The one sentence for what is named but not built."""
    return UsageError(f"fairway {what} is not in this version ({__version__}); nothing was done")


def register(app: typer.Typer) -> None:
    for verb, purpose in VERBS.items():
        app.command(verb, help=f"{purpose} (not in this version)", context_settings=_SETTINGS)(refuse(verb))


def refuse(verb: str):  # type: ignore[no-untyped-def]  # a command's signature is what typer reads
    def command(arguments: _Anything = None) -> None:
        raise missing(verb)

    return command
