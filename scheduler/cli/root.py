"""The command `tuttilab` itself: its subcommands, and how errors are printed."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn

import click

from tuttilab.scheduler import __version__
from tuttilab.scheduler.cli import (
    cluster,
    completing,
    console,
    dag,
    jobs,
    listing,
    local,
    profile,
    service,
    simulate,
    site,
    spark,
    submit,
)
from tuttilab.scheduler.domain.errors import TuttiError

INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, no_args_is_help=True)
@click.version_option(__version__, prog_name="tuttilab", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error; may stand anywhere before --.")
def cli(debug: bool) -> None:
    """Jobs, gangs and Spark sessions on this machine or your site's clusters.

    A JOB is its name, any unique beginning of its id (four characters or more), or `last`; so is a RUN.
    """


for _module in (local, submit, listing, jobs, dag, profile, site, cluster, spark, service, simulate, completing):
    for _command in _module.COMMANDS:
        cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    _prepare_streams()
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def _prepare_streams() -> None:
    """What is closed (`>&-`) goes nowhere, and what the terminal's encoding lacks is printed as its escape: neither is an error."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        elif mode == "w" and isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; every error becomes one sentence on stderr."""
    arguments, debug = _without_debug(arguments)
    try:
        code = cli.main(arguments, prog_name="tuttilab", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        console.put(error.format_message())
        return 0
    except click.ClickException as error:
        return _fail(error, _usage(error), error.exit_code, debug)
    except TuttiError as error:
        return _fail(error, str(error), error.exit_code, debug)
    except (KeyboardInterrupt, click.Abort) as error:
        return _fail(error, "", INTERRUPTED, debug)
    except SystemExit:
        # Without standalone_mode click exits for one reason only: the reader of the output (`head`) has closed the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(error, _os_trouble(error), 2, debug)
    except Exception as error:
        return _fail(error, f"{type(error).__name__}: {error}. This is a bug; run it again with --debug and report it.", 1, debug)


def _os_trouble(error: OSError) -> str:
    why = error.strerror or str(error)
    if error.filename:
        return f"{error.filename}: {why}; `tuttilab doctor` checks the state folder and its disk."
    try:
        os.getcwd()
    except OSError:
        return f"The current folder cannot be used ({why}); it may have been removed: go to another one with `cd`."
    if traceback.extract_tb(error.__traceback__)[-1].name in ("echo", "run"):
        return f"The output cannot be written ({why}); what was asked for may have been done, `tuttilab jobs` shows your jobs."
    return f"{why}; `tuttilab doctor` checks the state folder and its disk."


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """Remove --debug wherever the user put it; what follows -- belongs to the job."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    ours = [word for word in arguments[:end] if word != "--debug"]
    return ours + arguments[end:], len(ours) < end


def _usage(error: click.ClickException) -> str:
    """The message of a usage error, with the command that shows help."""
    text = " ".join(error.format_message().split())
    if isinstance(error, click.NoSuchOption) and error.possibilities:
        # click lists several, in alphabetical order.
        text = f"{error.message} Did you mean {error.possibilities[0]!r}?"
    if isinstance(error, click.UsageError) and error.ctx is not None:
        end = "" if text.endswith((".", "?", ")")) else "."
        text = f"{text}{end} See `{error.ctx.command_path} --help`."
    return text


def _fail(error: BaseException, sentence: str, code: int, debug: bool) -> int:
    """Print the sentence, with ``debug`` the traceback too; returns ``code``."""
    if debug:
        traceback.print_exception(error)
    if sentence:
        console.put(f"tuttilab: {sentence}", err=True)
    return code
