"""Runs one captured cell in the interpreter of the job's image, and leaves its result or its error in RESULT_DIR.

This room goes with every code bundle as the package ``tuttilab_cell``, started by the bundle's ``runner.py``. So it needs the
standard library of Python 3.9 or later and cloudpickle (xgboost too, for a cell that trains with it), nothing of ours, and its
modules import one another relatively.

Beside it lie ``bundle.json`` (versions, names, where modules are found, in ``sources`` the lines of functions from other cells),
``cell.py`` (the source) and, where the cell uses names of the notebook, ``inputs.pkl``. ``files/`` (what the submit took along) is
importable. With ``map_name`` that variable becomes one of its own elements, the one that TUTTILAB_MAP_INDEX counts.

Exit codes: 0 done, 1 the cell raised (``error.json`` says what), 78 the versions here are not those of the notebook, 143 stopped,
and whatever the cell itself exits with. What is left: ``result.pkl`` (`results`), ``error.json`` (`errors`), ``display.jsonl``
(`display`).
"""
