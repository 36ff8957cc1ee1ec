"""The process of one TensorBoard: `python -m tuttilab.jupyter_ext.board_process`, with its options on standard input.

Not on the command line, which every user of the machine can read: the secret URL path is the only protection, because every user
can reach a port on loopback. The process ends when standard input closes, so it never outlives the Jupyter server.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


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
    # The fast loader is a separate process that would outlive this one.
    board.configure(
        logdir=request["logdir"], host="127.0.0.1", port=0, path_prefix=request["prefix"], load_fast="false", reload_interval=5
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
