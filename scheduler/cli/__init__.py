"""The command line `tuttilab`: options in, one client call or one local action, text or JSON out.

Belongs here: options, tables, bars, exit codes, how an error reads. Does not belong here: any decision, and anything that another
surface needs too. Whatever is slow to import (the client, pydantic, rich) is imported by the command that needs it, so that
`--help` and completion answer at once.

Exit codes: 0 done; 1 the job failed; 2 bad usage or input; 3 refused; 4 the service cannot be reached; 130 interrupted.
"""

from tuttilab.scheduler.cli.root import main

__all__ = ["main"]
