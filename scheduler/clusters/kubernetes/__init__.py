"""A Kubernetes cluster behind `Cluster`: how an attempt becomes pods there, and how pods become what `observe` shows.

Pure functions make the bodies (`pods`, `objects`, `env`, `names`) and read the states (`states`); `api` speaks HTTP, `informer`
lists and watches, `launch` and `cluster` do what is asked, `logs` copies what containers print. No decisions: which node, which
gang and when is the core's. The official client is imported in `api` alone.
"""
