"""Values on their way between the notebook and Spark: literals, local frames, and the forms of a result.

`frames` and `values` need no pyspark; `forms` and `literals` do, and are imported when a cell runs.
"""
