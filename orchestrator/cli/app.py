"""The command line: which commands there are, and how each ends.

Exit status: 0 all trials completed or were pruned; 1 some failed; 2 a fault in what was given, nothing started; 3 a
budget is used up; 4 an error that no trial's record tells of; 130, 143 or 129 interrupted by Ctrl-C (SIGINT), SIGTERM
or SIGHUP. Heavy rooms are imported by the commands that need them, so that the others answer at once.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib.metadata import version as version_of
from types import TracebackType
from typing import Annotated, Any

import typer
import typer.core

from orchestrator.analysis.text.visible import visible
from orchestrator.cli import answer_commands, service_commands, sweep_commands
from orchestrator.scheduling.early_end import endings_raised
from orchestrator.secrets import masked
from trainables.faults import FaultsError

logger = logging.getLogger(__name__)

BROKEN = 4  # how a command ends that an error ended which nobody foresaw, or which the cluster is to blame for

_LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


class _Commands(typer.core.TyperGroup):
    """Commands of which an interrupt is told as this product tells it; Typer would say 130 of any, and no more."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            print(f"interrupted: {stop}" if str(stop) else "interrupted", file=sys.stderr)
            return 128 + getattr(stop, "number", signal.SIGINT)


app = typer.Typer(
    name="adaptune",
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        print(f"adaptune {version_of('adaptune')}")
        raise typer.Exit


@app.callback()
def _adaptune(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit."),
    ] = False,
) -> None:
    """How much accuracy does each trained parameter buy, on your tasks, and which setting should you ship?"""


for _each in (  # in the order in which the help lists them
    sweep_commands.plan,
    sweep_commands.simulate,
    sweep_commands.run,
    sweep_commands.resume,
    sweep_commands.data,
    answer_commands.status,
    answer_commands.report,
    answer_commands.paper,
    answer_commands.export,
    answer_commands.convert,
    answer_commands.ablate,
    sweep_commands.sequence,
    answer_commands.measure,
    service_commands.ui,
    service_commands.serve,
    service_commands.submit,
    service_commands.jobs,
    service_commands.logs,
    service_commands.stop,
    service_commands.doctor,
):
    app.command()(_each)


class TextLines(logging.Formatter):
    """Lines of the log as text that can be seen, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(masked(super().format(record)))


def _log_level() -> int:
    """What ADAPTUNE_LOG asks for. Raises `FaultsError` where that is no level."""
    asked = os.environ.get("ADAPTUNE_LOG") or "warning"
    if asked.lower() not in _LOG_LEVELS:
        rule = f"ADAPTUNE_LOG must be one of {', '.join(_LOG_LEVELS)}, but it is {asked!r}"
        raise FaultsError("environment", [rule])
    return logging.getLevelNamesMapping()[asked.upper()]


def _show_traceback(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """What an error leaves on the terminal that comes past all commands, without secrets."""
    print(masked("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def _show_traceback_of_thread(raised: threading.ExceptHookArgs) -> None:
    _show_traceback(raised.exc_type, raised.exc_value, raised.exc_traceback)


def _leave_at_once() -> None:
    """Let a Ctrl-C that comes as the process ends end it, and not show a traceback of a library that tidies up."""
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))


def _sentence(error: Exception) -> str:
    """What ended a command that nobody foresaw, where in the program, and how to see more of it."""
    logger.debug("an error ended the command", exc_info=error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    # What another process raised, Ray wraps in the whole traceback of that process.
    cause = getattr(error, "cause", None)
    told = cause if isinstance(cause, Exception) else error
    words = next((line.strip() for line in str(told).splitlines() if line.strip()), "").rstrip(".")
    said = f"{type(told).__name__}: {words}" if words else type(told).__name__
    return f"adaptune: ended by an error, {said}{where}; ADAPTUNE_LOG=debug shows its traceback"


@functools.cache
def _command() -> Any:
    """What Typer makes of all that is declared above. Calling `app` would make it anew each time."""
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (and is what the console script calls)."""
    # A sweep loads so much that the interpreter would look through it for garbage for seconds before it exits.
    atexit.register(gc.freeze)
    sys.excepthook = _show_traceback
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _show_traceback_of_thread
    # MLflow would write its log past ours, with whatever secrets it holds.
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    lines = logging.StreamHandler()
    lines.setFormatter(TextLines("%(name)s: %(message)s"))
    try:
        level = _log_level()
        # What other libraries would debug by are thousands of lines.
        logging.basicConfig(level=max(level, logging.INFO), handlers=[lines])
        if level < logging.INFO:
            for package in ("adaptune", "orchestrator", "trainables", "search_spaces"):
                logging.getLogger(package).setLevel(level)
        with endings_raised():  # so that no command leaves temporary files, locks or servers behind
            result: Any = _command()(arguments, standalone_mode=False)
        return int(result or 0)
    except FaultsError as error:
        print(visible(masked(str(error))), file=sys.stderr)
        return 2
    except typer.Abort:
        return 130
    except typer.Exit as end:
        return end.exit_code
    except Exception as error:
        usage = getattr(error, "format_message", None)  # click's own faults of the command line
        if usage is None:
            print(visible(masked(_sentence(error))), file=sys.stderr)
            return BROKEN
        # A fault of a command's line says where to look; one of the name of a command names the nearest itself.
        command = getattr(getattr(error, "ctx", None), "info_name", None)
        help_ = f"; `adaptune {command} --help` shows what it takes" if command in _command().commands else ""
        print(visible(masked(f"adaptune: {usage().removesuffix('.')}{help_}")), file=sys.stderr)
        return 2
    finally:
        atexit.unregister(_leave_at_once)
        atexit.register(_leave_at_once)  # last, so that it comes before what libraries do as the process ends
