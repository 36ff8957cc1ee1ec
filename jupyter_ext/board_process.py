"""The process of one TensorBoard: `python -m tuttilab.jupyter_ext.board_process`, with its options on standard input.

Not on the command line, which every user of the machine can read: the secret URL path is the only protection, because every user
can reach a port on loopback. The process ends when standard input closes, so it never outlives the Jupyter server.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
from typing import Any, Final

MOST_MEMORY: Final = 4 * 2**30
"""Of addresses; it has 0.5 GiB of them when it starts."""
READER: Final = "Reloader"
"""TensorBoard's name of the thread that reads."""


def main() -> None:
    request: dict[str, Any] = json.loads(sys.stdin.readline())  # Any: JSON; our own parent wrote it
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # TensorBoard also writes to standard output, which has to carry only the one line of our answer.
    os.dup2(2, 1)
    try:
        from tensorboard import program
    except ImportError:
        answer(answers, {"error": "TensorBoard is not installed beside Jupyter; run `pip install tensorboard`."})
        return
    board = program.TensorBoard()
    _bound(answers)
    # The fast loader is a separate process that would outlive this one.
    board.configure(
        logdir=request["logdir"], host="127.0.0.1", port=0, path_prefix=request["prefix"], load_fast="false", reload_interval=5
    )
    url = board.launch()
    answer(answers, {"url": url})
    while sys.stdin.readline():
        pass
    os._exit(0)


def _bound(answers: Any) -> None:
    """What a file makes it read is bounded; a thread that has met the bound would otherwise show old values for ever."""

    def tell(given: threading.ExceptHookArgs) -> None:
        if given.exc_type is not MemoryError and (given.thread is None or given.thread.name != READER):
            return  # of one request
        what = "it needs more memory than it may have" if given.exc_type is MemoryError else f"{given.exc_value}"
        answer(answers, {"error": f"TensorBoard ended while it read these results: {what}."})
        os._exit(1)

    threading.excepthook = tell
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = MOST_MEMORY if most == resource.RLIM_INFINITY else min(MOST_MEMORY, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    os.nice(5)


def answer(answers: Any, body: dict[str, str]) -> None:
    answers.write(json.dumps(body) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
