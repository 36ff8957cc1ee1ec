"""The process of one TensorBoard: `python -m tuttilab.jupyter_ext.board_process`, told on standard input what to show.

On standard input, because a command line can be read by every user of the machine, and the path it is served under is its only key:
anybody here can reach a port on loopback. It ends when standard input does, so it never outlives the Jupyter server.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> None:
    told: dict[str, Any] = json.loads(sys.stdin.readline())  # Any: JSON; our own parent wrote it
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # TensorBoard writes to standard output too; the answer there is one line of ours.
    os.dup2(2, 1)
    try:
        from tensorboard import program
    except ImportError:
        answer(answers, {"error": "TensorBoard is not installed beside Jupyter; run `pip install tensorboard`."})
        return
    board = program.TensorBoard()
    # The fast loader is a process of its own that would outlive this one.
    board.configure(
        logdir=told["logdir"], host="127.0.0.1", port=0, path_prefix=told["prefix"], load_fast="false", reload_interval=5
    )
    url = board.launch()
    answer(answers, {"url": url})
    while sys.stdin.readline():
        pass
    os._exit(0)


def answer(answers: Any, body: dict[str, str]) -> None:
    answers.write(json.dumps(body) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
