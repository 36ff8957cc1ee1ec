"""The domain, the decisions, and the service that carries them out.

Belongs here: what a job, a gang, a queue and a cluster are; which gang starts where; the store, the clusters and the REST API
that make it happen; the typed client of that API. Does not belong here: anything that runs inside a notebook kernel (`magics`),
inside a pod (`sidecar`), inside a Jupyter server (`jupyter_ext`) or inside a hub (`spawner`).
"""

__version__ = "0.1.0.dev0"
