"""The control plane on a machine whose clock differs from that of its pods: `python shifted.py --config FILE`, by CLOCK_SHIFT_S.

What it starts has the machine's own clock, as a pod on another node has.
"""

from __future__ import annotations

import os
import sys
import time


def shift(by_s: float) -> None:
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + by_s
    time.time_ns = lambda: real_ns() + int(by_s * 10**9)


if __name__ == "__main__":
    shift(float(os.environ["CLOCK_SHIFT_S"]))
    # Only now: other modules keep the function that they find.
    from tuttilab.scheduler.server import serve

    sys.exit(serve.main(sys.argv[1:]))
