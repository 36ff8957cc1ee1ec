"""`python -m tuttilab.scheduler.cli` is `tuttilab`."""

from tuttilab.scheduler.cli import main

main()
