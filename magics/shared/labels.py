"""Names that a submit writes on its job and that the notebook finds the job and its results by."""

from typing import Final

# Labels of a job.
CELL: Final = "cell"
NOTEBOOK: Final = "notebook"
VARIABLE: Final = "var"
"""The notebook variable that is bound to the job's handle."""
SWEEP: Final = "sweep"
"""Shared by the jobs of one `--map`; `ELEMENT` is the index among them."""
ELEMENT: Final = "element"

# Outputs of a pod.
RESULT: Final = "result"
ERROR: Final = "error"
DISPLAY: Final = "display"
EXECUTED: Final = "notebook"
"""The executed copy of a notebook that ran as a job (`scheduler.client.notebooks`)."""

FIRST_LINE: Final = "# %%submit\n"
"""Of the source of a cell in its bundle: it stands where the notebook has the line of the magic, so that line numbers agree."""
