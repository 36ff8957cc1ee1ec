"""`%spark start|use|list|stop|logs|ui|ops|add`: manages the user's sessions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tuttilab.magics.shared.pages import Pages, server_address
from tuttilab.magics.shared.parse import (
    Option,
    Parsed,
    Positional,
    UsageError,
    duration_s,
    help_table,
    key_value,
    nearest,
    parse_line,
    whole_number,
)
from tuttilab.magics.spark.session import SessionRequest, SparkSessionInfo, executors_of
from tuttilab.magics.spark.sessions import Sessions, stopped_waiting
from tuttilab.scheduler.domain.resources import parse_spark_memory

_START = (
    Option("--cores", "N", whole_number, help="processor cores of the session's server"),
    Option("--memory", "M", help="memory of the session's server in all, such as 8Gi"),
    Option(
        "--executors",
        "N",
        whole_number,
        help="executors in pods of their own: all start or none (default: tasks run in the server)",
    ),
    Option("--executor-cores", "N", whole_number, help="cores of each executor (default: 1)"),
    Option("--executor-memory", "M", help="heap of each executor, such as 4g (default: 1g)"),
    Option("--driver-cores", "N", whole_number, help="another word for --cores"),
    Option("--driver-memory", "M", help="heap of the session's server, such as 2g"),
    Option("--image", "I", help="container image of its pods, with tuttilab[spark] in it"),
    Option("--cluster", "C", help="run on this cluster"),
    Option("--queue", "Q", help="queue whose quota it counts on"),
    Option("--idle", "T", duration_s, help="stop after this time without use, such as 1h"),
    Option("--ttl", "T", duration_s, help="end after this time whatever runs, such as 8h"),
    Option("--conf", "K=V", key_value, repeatable=True, help="a Spark setting; may be given several times"),
    Option("--ui", help="serve Spark's own pages"),
    Option("--keep", help="do not give way when it is idle and your other work waits for what it holds"),
    Option("--restart", help="replace a running session of another size; its temporary views are lost"),
)
# Each command with its options.
SESSION_OPTIONS: dict[str, tuple[Option, ...]] = {
    "start": _START,
    "use": (),
    "list": (),
    "stop": (),
    "logs": (Option("--lines", "N", whole_number, default=50, help="how many of the last lines"),),
    "ui": (),
    "ops": (),
    "add": (),
}
_NAME = Positional("NAME", help="of the session (default: the one in use)")
_RUNNING = ("running", "ready")


def session_command(sessions: Sessions, line: str, on_wait: Callable[[str], None], tell: Callable[[str], None]) -> str | Pages:
    """Runs one `%spark …` line; returns what to show."""
    command, _, rest = line.strip().partition(" ")
    if command in ("", "--help", "-h"):
        return "\n".join(help_table(f"%spark {name}", options, ()) for name, options in SESSION_OPTIONS.items())
    if command not in SESSION_OPTIONS:
        guess = nearest(command, SESSION_OPTIONS)
        hint = f"did you mean %spark {guess}?" if guess else f"it takes {', '.join(SESSION_OPTIONS)}."
        raise UsageError(f"%spark: unknown command {command}; {hint}")
    positionals = (Positional("FILE", required=True, many=True),) if command == "add" else (_NAME,)
    parsed = parse_line(f"%spark {command}", SESSION_OPTIONS[command], rest, positionals)
    if parsed.help_text is not None:
        return parsed.help_text
    name = str(parsed.positionals.get("NAME", sessions.current))
    match command:
        case "start":
            return _start(sessions, name, parsed, on_wait)
        case "use":
            sessions.current = name
            return f"Cells without --session use {name}."
        case "list":
            return _table(sessions.provider.list(), sessions.current)
        case "stop":
            return _stop(sessions, name)
        case "logs":
            return sessions.provider.logs(name, parsed["lines"])
        case "ui":
            return _ui(sessions, name)
        case "ops":
            return _operations(sessions, name, on_wait, tell)
        case _:
            return _add(sessions, parsed.positionals["FILE"], on_wait, tell)


def _start(sessions: Sessions, name: str, parsed: Parsed, on_wait: Callable[[str], None]) -> str:
    request = SessionRequest(
        parsed["cores"],
        parsed["memory"],
        parsed["queue"],
        parsed["idle"],
        tuple(parsed["conf"]),
        parsed["ui"],
        parsed["keep"],
        parsed["executors"],
        parsed["executor-cores"],
        parsed["executor-memory"],
        parsed["driver-cores"],
        parsed["driver-memory"],
        parsed["ttl"],
        parsed["image"],
        parsed["cluster"],
    )
    running = next((info for info in sessions.provider.list() if info.name == name and info.phase in _RUNNING), None)
    if running is not None and not parsed["restart"]:
        changes = _changes(running.request, request)
        if changes:
            raise UsageError(
                f"Session {name} runs already, with another {changes}; add --restart to replace it "
                "(its temporary views are lost), or start one of another name."
            )
        sessions.current = name
        return f"Session {name} runs already and is in use."
    began = time.monotonic()
    gone = sessions.drop(name)
    try:
        endpoint = sessions.provider.start(name, request, on_wait)
    except KeyboardInterrupt as error:
        raise stopped_waiting(name) from error
    sessions.adopt(endpoint)
    sessions.current = name
    return f"Session {name} is ready after {time.monotonic() - began:.1f} s and in use. {gone}".rstrip()


def _stop(sessions: Sessions, name: str) -> str:
    live = [info.name for info in sessions.provider.list() if info.phase != "ended"]
    sessions.provider.stop(name)
    gone = sessions.drop(name)
    if name in live:
        return f"Session {name} is stopped. {gone}".rstrip()
    yours = f"yours: {', '.join(live)}" if live else "you have none"
    return f"There was no Spark session {name} to stop; {yours}. {gone}".rstrip()


def _changes(running: SessionRequest, asked: SessionRequest) -> str:
    """The options that differ from the running session's; options that were not given are ignored."""
    differing = [
        label
        for label, has, wants in (
            ("number of cores", running.cores, asked.cores),
            ("memory", running.memory, asked.memory),
            ("queue", running.queue, asked.queue),
            ("idle time", running.idle_s, asked.idle_s),
            ("set of settings", running.conf, asked.conf or None),
            ("number of executors", running.executors, asked.executors),
            ("number of cores an executor", running.executor_cores, asked.executor_cores),
            ("memory of executors", as_heap(running.executor_memory), as_heap(asked.executor_memory)),
            ("number of driver cores", running.driver_cores, asked.driver_cores),
            ("memory of the driver", as_heap(running.driver_memory), as_heap(asked.driver_memory)),
            ("time to live", running.ttl_s, asked.ttl_s),
            ("image", running.image, asked.image),
            ("cluster", running.cluster, asked.cluster),
            ("choice of --keep", running.keep, asked.keep or None),
            ("choice of --ui", running.ui, asked.ui or None),
        )
        if wants is not None and wants != has
    ]
    return " and ".join(differing)


def as_heap(text: str | None) -> int | None:
    """Bytes of a heap, so that 4g is 4096m."""
    return None if text is None else parse_spark_memory(text, "memory")


def _table(infos: Sequence[SparkSessionInfo], current: str) -> str:
    if not infos:
        return "No Spark session; %spark start or any %%spark cell starts one."
    rows = [("", "name", "phase", "cores", "memory", "executors", "reason")]
    for info in infos:
        request = info.request
        mark = "*" if info.name == current else ""
        beside = executors_of(request)
        rows.append((mark, info.name, info.phase, str(request.cores or ""), request.memory or "", beside, info.reason))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _ui(sessions: Sessions, name: str) -> str | Pages:
    for info in sessions.provider.list():
        if info.name == name:
            if info.ui is not None:
                return Pages(name, info.ui, server_address())
            if info.phase not in _RUNNING:
                return f"Session {name} is not ready yet ({info.phase}), and so are its pages; try again when it is."
            return f"Session {name} serves no pages; %spark start {name} --ui --restart turns them on."
    return f"There is no session {name}; %spark start {name} --ui starts one with pages."


def _operations(sessions: Sessions, name: str, on_wait: Callable[[str], None], tell: Callable[[str], None]) -> str:
    from tuttilab.magics.spark.connect import operations

    found = operations(sessions.get(name, on_wait, tell).spark)
    live = [f"{operation}  {state}" for operation, state in found if state in ("running", "terminating")]
    return "\n".join([*live, f"{len(live)} running, {len(found) - len(live)} ended lately, in session {name}"])


def _add(sessions: Sessions, files: Sequence[str], on_wait: Callable[[str], None], tell: Callable[[str], None]) -> str:
    paths = [Path(file) for file in files]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise UsageError(f"%spark add: there is no file {', '.join(missing)}.")
    spark = sessions.get(None, on_wait, tell).spark
    for path in paths:
        is_module = path.suffix in (".py", ".zip", ".egg")
        spark.addArtifacts(str(path), pyfile=is_module, file=not is_module and path.suffix != ".jar")
    return f"added {', '.join(files)} to the session"
