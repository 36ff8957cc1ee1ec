"""`%%spark`, `%%sql`, `%%pretty`, `%%local`, `%%send_to_spark` and the magics of sessions, as sparkmagic had them."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any, Final

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_cell_magic, line_magic, magics_class, no_var_expand
from IPython.display import display

from tuttilab.magics.shared.parse import Option, Parsed, Positional, UsageError, nearest
from tuttilab.magics.spark.data.values import as_spark_frame, is_local_frame
from tuttilab.magics.spark.display import Line, show
from tuttilab.magics.spark.magic import SparkMagics
from tuttilab.magics.spark.remote import Outcome, SessionNames
from tuttilab.magics.spark.results import Results, fetched_form
from tuttilab.magics.spark.session import SessionRequest, as_quantity
from tuttilab.magics.sparkmagic.lines import CELL, COMMANDS, FORCE, RESULT, SEND, SESSION, as_ours, read, shape_of

MOST_CONFIGURATION: Final = 100_000
"""Characters of `%%configure`."""
_SESSION: Final = Option("--session", "NAME", short="-s", help="the session (default: the one in use)")
_LIVE: Final = ("ready", "running")
_EXECUTORS: Final = {"numExecutors": "executors", "executorCores": "executor_cores", "executorMemory": "executor_memory"}
_EXPECTED: Final = 'expected an object such as {"driverMemory": "4G", "conf": {"spark.sql.ansi.enabled": "true"}}.'
_NOT_USED: Final = ("kind", "name", "proxyUser", "heartbeatTimeoutInSecond", "ttl")


@magics_class
class SparkmagicCells(Magics):
    """The cells; sessions and what runs in them are those of `%%spark`."""

    shell: InteractiveShell

    def __init__(self, shell: InteractiveShell, ours: SparkMagics) -> None:
        super().__init__(shell)
        self.ours = ours
        self._names = SessionNames(ours)
        self._languages: dict[str, str] = {}
        self._asked: SessionRequest | None = None
        """What `%%spark config` says of the sessions to come."""

    @no_var_expand
    @line_cell_magic
    def spark(self, line: str, cell: str | None = None) -> object:
        """Run a cell in a session (%%spark -s NAME -c sql -o VAR), or manage sessions (%spark add, list, delete, logs …)."""
        command = line.split(maxsplit=1)[0] if line.split() else ""
        if command in COMMANDS:
            self._command(command, line.split(maxsplit=1)[1:], cell or "")
            return None
        if cell is None:
            self.ours.manage(line)
            return None
        parsed = read("%%spark", CELL, line)
        if _helped(parsed):
            return None
        self._begin(parsed["session"])
        if parsed["context"] == "sql":
            return self._sql(parsed, cell)
        if self._languages.get(parsed["session"] or self.ours.sessions.current) == "scala":
            self.ours.scala(as_ours(parsed, True, None), cell)
            if parsed["output"] is not None:
                raise UsageError("%%spark -o: brings back a frame of Python; in Scala make it a view and write %%sql -o VAR.")
            return None
        self._python(parsed, cell)
        return None

    @no_var_expand
    @cell_magic
    def sql(self, line: str, cell: str) -> object:
        """Run SQL; -o binds the rows as pandas."""
        parsed = read("%%sql", (*RESULT, _SESSION), line)
        if _helped(parsed):
            return None
        self._begin(parsed["session"])
        return self._sql(parsed, cell)

    @no_var_expand
    @cell_magic
    def pretty(self, line: str, cell: str) -> None:
        """Run a cell in the session; results are tables anyway."""
        parsed = read("%%pretty", CELL, line)
        if not _helped(parsed):
            self._begin(parsed["session"])
            self._python(parsed, cell)

    @no_var_expand
    @cell_magic
    def local(self, line: str, cell: str) -> None:
        """Run a cell with the names of the notebook, as a cell without a magic does."""
        if line.strip():
            raise UsageError(f"%%local takes no options, got {line.strip()!r}.")
        self.shell.run_cell(cell).raise_error()  # type: ignore[no-untyped-call]  # IPython has no types here

    @no_var_expand
    @line_cell_magic
    def send_to_spark(self, line: str, cell: str = "") -> None:
        """Give a variable of the notebook to the session: -i VAR -t str|df -n NAME."""
        parsed = read("%%send_to_spark", SEND, line)
        if _helped(parsed):
            return
        name = parsed["input"]
        if name is None or name not in self.shell.user_ns:
            hint = "assign it in a cell above" if name else "name it with -i VAR"
            raise UsageError(f"%%send_to_spark: {f'there is no variable {name}' if name else 'which variable?'}; {hint}.")
        value = self.shell.user_ns[name]
        there = parsed["varname"] or name
        self._begin(None)
        held = self.ours.sessions.get(None, _quietly(), _tell)
        if parsed["vartype"] == "df":
            if not is_local_frame(value):
                raise UsageError(f"%%send_to_spark: {name} is a {type(value).__name__}; -t df takes a DataFrame, -t str a text.")
            value = as_spark_frame(held.spark, name, value)
            value = value if parsed["maxrows"] < 0 else value.limit(parsed["maxrows"])  # type: ignore[union-attr]  # it is a frame
        elif not isinstance(value, str):
            raise UsageError(f"%%send_to_spark: {name} is a {type(value).__name__}; -t str takes a text, -t df a DataFrame.")
        self._names.of(held)[there] = value
        show(Line(f"{name} of the notebook is {there} in session {held.endpoint.name}."))

    @no_var_expand
    @line_cell_magic
    def configure(self, line: str, cell: str = "") -> None:
        """Start the session with these settings, in JSON; -f replaces one that runs."""
        parsed = read("%%configure", FORCE, line)
        if not _helped(parsed):
            self._configure(cell, parsed["force"])

    @line_cell_magic
    def info(self, line: str, cell: str = "") -> None:
        """List your sessions."""
        if not _helped(read("%%info", (), line)):
            self.ours.manage("list")

    @line_cell_magic
    def logs(self, line: str, cell: str = "") -> None:
        """The last lines of the session's log."""
        parsed = read("%%logs", (_SESSION,), line)
        if not _helped(parsed):
            self.ours.manage(f"logs {parsed['session'] or ''}")

    @line_cell_magic
    def cleanup(self, line: str, cell: str = "") -> None:
        """Stop all your sessions; -f is mandatory."""
        parsed = read("%%cleanup", FORCE, line)
        if _helped(parsed):
            return
        if not parsed["force"]:
            raise UsageError("%%cleanup ends all your Spark sessions; write `%%cleanup -f` if that is meant.")
        self._cleanup()

    @line_cell_magic
    def delete(self, line: str, cell: str = "") -> None:
        """Stop a session: -f -s NAME."""
        parsed = read("%%delete", (*FORCE, _SESSION), line)
        if _helped(parsed):
            return
        if not parsed["force"] or parsed["session"] is None:
            raise UsageError("%%delete ends a Spark session; write `%%delete -f -s NAME`, %%info has the names.")
        self._stop(parsed["session"])

    @line_cell_magic
    def manage_spark(self, line: str, cell: str = "") -> None:
        """Says what to use."""
        _tell("There is no panel of endpoints: any cell starts your session, `%spark start NAME --cores N` one of another size.")

    @line_magic
    def matplot(self, line: str) -> None:
        """Says that figures appear by themselves."""
        import matplotlib.pyplot as plt

        display(plt.gcf())  # type: ignore[no-untyped-call]  # IPython has no types here

    def _sql(self, parsed: Parsed, body: str) -> object:
        shape = shape_of(parsed)
        return self.ours.sql(as_ours(parsed, not parsed["quiet"], parsed["output"]), body, first_line=2, shape=shape)

    def _python(self, parsed: Parsed, body: str) -> None:
        shape = shape_of(parsed)
        asked = as_ours(parsed, not parsed["quiet"], None)
        results = Results(asked, is_line=False)
        bound: dict[str, Any] = {}

        def collect(outcome: Outcome) -> None:
            from tuttilab.magics.spark.connect import is_frame

            for frame in outcome.frames:
                results.add(shape(frame), "", is_last=False)
            if is_frame(outcome.value):
                results.add(shape(outcome.value), "", is_last=True)
            elif outcome.value is not None and not parsed["quiet"]:
                display(outcome.value)  # type: ignore[no-untyped-call]  # IPython has no types here
            if parsed["output"] is not None:
                value = outcome.name(parsed["output"], f"{parsed.magic} -o")
                if not is_frame(value):
                    kind = type(value).__name__
                    raise UsageError(f"{parsed.magic} -o {parsed['output']}: it is a {kind}; -o brings back a Spark DataFrame.")
                bound[parsed["output"]] = fetched_form(shape(value), "pandas")

        self._names.run(asked, body, echo=True, then=collect)
        self.shell.user_ns.update(bound)

    def _command(self, command: str, rest: list[str], body: str) -> None:
        parsed = read(f"%spark {command}", SESSION, " ".join(rest), (Positional("NAME"),))
        if _helped(parsed):
            return
        name = parsed["session"] or parsed.positionals.get("NAME")
        match command:
            case "add":
                self._add(name or self.ours.sessions.current, parsed["language"])
            case "list" | "info":
                self.ours.manage("list")
            case "logs":
                self.ours.manage(f"logs {name or ''}")
            case "delete":
                if name is None:
                    raise UsageError("%spark delete: which session? `%spark delete -s NAME`; %spark list has the names.")
                self._stop(name)
            case "cleanup":
                self._cleanup()
            case _:
                self._asked, left = _request(body)
                _tell(f"Sessions that start from here on have these settings.{_without(left)}")

    def _add(self, name: str, language: str) -> None:
        if language == "r":
            raise UsageError("%spark add: R has no counterpart here; cells are Python, Scala or SQL.")
        sessions = self.ours.sessions
        self._begin(name)
        sessions.get(name, _quietly(), _tell)
        sessions.current = name
        self._languages[name] = language
        _tell(f"Session {name} is in use; its cells are {language.capitalize()}. There is no Livy: the endpoint is not used.")

    def _begin(self, name: str | None) -> None:
        """The session with the settings of `%%spark config`, where there is none yet."""
        sessions = self.ours.sessions
        name = name or sessions.current
        if self._asked is None or any(info.name == name and info.phase != "ended" for info in sessions.provider.list()):
            return
        sessions.adopt(sessions.provider.start(name, self._asked, _quietly()))

    def _stop(self, name: str) -> None:
        infos = self.ours.sessions.provider.list()
        if not any(info.name == name for info in infos):
            guess = nearest(name, [info.name for info in infos])
            hint = f"did you mean {guess}?" if guess else "%%info lists them."
            raise UsageError(f"There is no Spark session {name} of yours; {hint}")
        self.ours.manage(f"stop {name}")

    def _cleanup(self) -> None:
        names = [info.name for info in self.ours.sessions.provider.list() if info.phase != "ended"]
        for name in names:
            self.ours.sessions.provider.stop(name)
            self.ours.sessions.drop(name)
        _tell(f"Stopped: {', '.join(names)}." if names else "There was no Spark session.")

    def _configure(self, text: str, is_forced: bool) -> None:
        request, left = _request(text)
        sessions = self.ours.sessions
        name = sessions.current
        if not is_forced and any(info.name == name and info.phase in _LIVE for info in sessions.provider.list()):
            raise UsageError(
                f"%%configure: session {name} runs already; `%%configure -f` starts it anew, without its names and views."
            )
        began = time.monotonic()
        gone = sessions.drop(name)
        sessions.adopt(sessions.provider.start(name, request, _quietly()))
        _tell(f"Session {name} is ready after {time.monotonic() - began:.1f} s.{_without(left)} {gone}".rstrip())


def _request(text: str) -> tuple[SessionRequest, list[str]]:
    """The session of a Livy request, and its keys that have no counterpart. Raises UsageError."""
    if len(text) > MOST_CONFIGURATION:
        raise UsageError(f"%%configure: at most {MOST_CONFIGURATION:,} characters of JSON, got {len(text):,}.")
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"%%configure: the cell is no JSON ({error}); {_EXPECTED}") from error
    if not isinstance(found, dict) or not isinstance(found.get("conf", {}), dict):
        raise UsageError(f"%%configure: {_EXPECTED}")
    cores = found.get("driverCores")
    if cores is not None and (type(cores) is not int or cores < 1):
        raise UsageError(f"%%configure: driverCores is a whole number of at least 1, got {cores!r}.")
    memory = found.get("driverMemory")
    conf = tuple((str(key), str(value)) for key, value in found.get("conf", {}).items())
    queue = found.get("queue")
    size = None if memory is None else as_quantity(str(memory))
    request = SessionRequest(cores, size, None if queue is None else str(queue), conf=conf)
    known = {field.name for field in dataclasses.fields(SessionRequest)}
    more: dict[str, Any] = {}
    for key, ours in _EXECUTORS.items():
        if key in found and ours in known:
            more[ours] = as_quantity(str(found[key])) if key == "executorMemory" else found[key]
    taken = {"driverCores", "driverMemory", "conf", "queue", *_NOT_USED, *(key for key, ours in _EXECUTORS.items() if ours in more)}
    return dataclasses.replace(request, **more), sorted(found.keys() - taken)


def _without(left: list[str]) -> str:
    return f" No counterpart here: {', '.join(left)}." if left else ""


def _helped(parsed: Parsed) -> bool:
    if parsed.help_text is not None:
        show(Line(parsed.help_text))
        return True
    return False


def _tell(text: str) -> None:
    show(Line(text))


def _quietly() -> Callable[[str], None]:
    """Each reason for which a session waits, once."""
    told: set[str] = set()

    def tell(text: str) -> None:
        if text not in told:
            told.add(text)
            _tell(text)

    return tell
