"""Plans on their way to a server on this machine: what they name by a relative way is where the notebook finds it.

The server's own folder is a private one of its pod, and it serves several notebooks. So a relative path is made absolute here, from
the kernel's current folder, as Python itself reads it. And a function that Spark runs looks for modules where the notebook does: a
few instructions before its pickle add these folders to the path of Spark's Python process.
"""

from __future__ import annotations

import os
import pickle
import pickletools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from tuttilab.magics.shared.parse import UsageError
from tuttilab.magics.shared.paths import absolute

_WITH_PLAN = ("ExecutePlanRequest", "AnalyzePlanRequest")
_FUNCTIONS = ("PythonUDF", "PythonUDTF")
_WITH_PATH = ("WriteOperation", "WriteStreamOperationStart", "CreateTable", "CreateExternalTable")
# `import sys` first: nothing of the notebook's is imported by it, and a folder that is there already stays where it is.
_ADD_FOLDERS = "import sys\nsys.path.extend(folder for folder in {folders!r} if folder not in sys.path)\n"


class _EachRequest(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):  # type: ignore[misc]  # grpc has no types
    """Looks at each request before it is sent."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:  # Any: grpc has no types
        self._look(request)
        return continuation(details, request)

    intercept_unary_stream = intercept_unary_unary

    def _look(self, request: Any) -> None:  # Any: generated classes without types
        raise NotImplementedError


class FromHere(_EachRequest):
    """Changes each request before it is sent. `module_path`: the folders of the notebook's own modules."""

    def __init__(self, module_path: Callable[[], Sequence[str]]) -> None:
        self._module_path = module_path

    def _look(self, request: Any) -> None:  # Any: as above
        if type(request).__name__ not in _WITH_PLAN:
            return
        prefix: bytes | None = None
        for message in _messages(request):
            name = message.DESCRIPTOR.name
            if name == "DataSource":
                _change_source(message, os.getcwd())
            elif name in _WITH_PATH and message.path:
                message.path = absolute(message.path, os.getcwd())
            elif name in _FUNCTIONS and message.command:
                prefix = adding_folders(self._module_path()) if prefix is None else prefix
                if not message.command.startswith(prefix):  # a request that is sent again
                    message.command = prefix + message.command


class OfOnePython(_EachRequest):
    """Sends no function of Python where `why_not` says why: it could not be read there, which Spark finds out in the middle."""

    def __init__(self, why_not: Callable[[], str]) -> None:
        self._why_not = why_not

    def _look(self, request: Any) -> None:  # Any: as above
        why = self._why_not()
        if why and type(request).__name__ in _WITH_PLAN and any(one.DESCRIPTOR.name in _FUNCTIONS for one in _messages(request)):
            raise UsageError(why)


def _change_source(source: Any, folder: str) -> None:  # Any: a generated class without types
    for place, path in enumerate(source.paths):
        source.paths[place] = absolute(path, folder)
    for option in source.options:
        if option.lower() == "path":
            source.options[option] = absolute(source.options[option], folder)


def _messages(message: Any) -> Iterator[Any]:  # Any: as above
    """The message and every message inside; a plan may be deeper than Python's stack."""
    waiting = [message]
    while waiting:
        one = waiting.pop()
        yield one
        for _field, value in one.ListFields():
            if hasattr(value, "DESCRIPTOR"):
                waiting.append(value)
            elif hasattr(value, "values"):
                waiting += [item for item in value.values() if hasattr(item, "DESCRIPTOR")]
            elif not isinstance(value, (str, bytes, int, float)):
                waiting += [item for item in value if hasattr(item, "DESCRIPTOR")]


def adding_folders(folders: Sequence[str]) -> bytes:
    """Pickle instructions that leave nothing behind: another pickle, appended, is loaded as if it stood alone."""
    if not folders:
        return b""
    statement = _ADD_FOLDERS.format(folders=list(folders))
    # Optimized, it numbers nothing that is used again: the numbers belong to the pickle that follows.
    call = pickletools.optimize(pickle.dumps(_Call(statement), protocol=4))
    # Without the final STOP, and the call's result, None, taken off the stack.
    return call[:-1] + pickle.POP


class _Call:
    def __init__(self, statement: str) -> None:
        self._statement = statement

    def __reduce__(self) -> Any:  # Any: as in pickle
        return exec, (self._statement,)
