"""`%%spark`, `%%sparksql` and `%spark`: sessions, running a cell on one, and its results.

Only `connect` and `magic` import pyspark, which takes more than a second: kernels without Spark cells never load it.
"""
