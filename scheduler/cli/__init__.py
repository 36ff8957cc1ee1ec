"""The command line `tuttilab`: parses options, makes client calls or acts on this machine, prints text or JSON.

Belongs here: options, tables, bars, exit codes, the format of errors. Does not belong here: decisions, and anything that another
surface needs too. Slow imports (the client, pydantic, rich) are inside the commands that need them, so that `--help` and completion
answer at once.

Exit codes: 0 done; 1 the job failed; 2 bad usage or input; 3 refused; 4 the service cannot be reached; 130 interrupted.
"""

from tuttilab.scheduler.cli.root import main

__all__ = ["main"]
