"""`fairway VERB [THING ...] [--options]`: the fifteen verbs, and how every error ends in one line and an exit code.

Exit codes: 0 done; 1 the gate, data, model code or rollout said no; 2 the command or a file is wrong; 3 not decided,
or not finished; 70 our failure. Nothing heavy is imported here: each command imports what it needs when it runs.
"""

import difflib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from fairway import __version__
from fairway.cli import admin, check, later, make, move, run, see
from fairway.cli.terminal import progress, say
from fairway.errors import FairwayError, UsageError

OUR_FAILURE = 70

HELP = """From a table to a guarded endpoint, and the loop that keeps it good.

\b
  make     new check train diff       see      status show
  run      serve score                prove    backtest
  move     deploy rollback answer     outside  import export
                                      keep     admin

THING is churn, churn@3, run-7f3a, rollout-9, alarm-12, review-31, p-01JD..., or a list: runs, reviews. In a project's
folder it is that project. Every command takes --json and --help; --debug shows an error's trace.
"""

ORDER = (
    "new", "check", "train", "diff", "serve", "score", "deploy", "rollback", "answer", "status", "show", "backtest",
    "import", "export", "admin",
)  # fmt: skip


class Verbs(TyperGroup):
    """Lists the verbs in the order of the path, and knows the nearest one when what was asked for is none."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], list(self.commands), n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(self.list_commands(ctx))}"
            raise UsageError(f'no command "{args[0]}"{hint}')
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="fairway",
    cls=Verbs,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"fairway {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Show the version."),
    debug: bool = typer.Option(False, "--debug", help="Show the trace of an error (may stand anywhere)."),
) -> None:
    """Options of all commands: `main` takes --debug out wherever it stands."""


make.register(app)
check.register(app)
run.register(app)
move.register(app)
see.register(app)
later.register(app)
app.add_typer(admin.app, name="admin")


def main(argv: list[str] | None = None) -> None:
    """The entry point `fairway`: runs one command and exits with its code."""
    sys.exit(call(list(sys.argv[1:] if argv is None else argv)))


def call(argv: list[str]) -> int:
    """Run one command; its exit code. Expected errors are one line on stderr, with --json also an object on stdout."""
    debug = "--debug" in argv
    argv = [argument for argument in argv if argument != "--debug"]
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(message)s", stream=sys.stderr)
    if debug:
        for noisy in ("httpx", "httpcore", "asyncio"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        code = app(args=argv, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except FairwayError as error:
        _report(str(error), error.code, error.field, argv, trace=debug, notes=getattr(error, "__notes__", ()))
        return error.exit_code
    except typer.Abort:
        progress("stopped; nothing more was done")
        return 3
    except BrokenPipeError:
        # The reader (`| head`) has gone; Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # the parser's: a wrong option or argument
            message = str(error.format_message())
            _report(
                message if message.startswith("Usage:") else _lower_first(message.rstrip(".")),
                "usage",
                None,
                argv,
                trace=debug,
            )
            return 2
        _report(
            f"our failure: {type(error).__name__}: {error}. What was there before stays; see more with --debug",
            "internal", None, argv, trace=debug,
        )  # fmt: skip
        return OUR_FAILURE


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _report(
    message: str, code: str, field: str | None, argv: list[str], *, trace: bool, notes: Sequence[str] = ()
) -> None:
    if trace:
        traceback.print_exc()
    progress("\n".join([message, *notes]))
    if "--json" in argv:
        import json

        say(json.dumps({"error": message, "code": code, "field": field}, ensure_ascii=False))


if __name__ == "__main__":
    main()
