"""Jobs in the notebook: handles, waiting, results, and `%jobs`, `%job`, `%quota`, `%attach`, `%dag`.

Does not belong here: how a cell becomes a job (`submission`), Spark (`spark`).
"""
