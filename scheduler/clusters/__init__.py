"""The heterogeneous proxy: one `Cluster` protocol of six methods and its implementations.

Belongs here: talking to a place where pods run (processes on this machine, Kubernetes, YARN, a fake) and translating its errors.
Does not belong here: deciding what runs where (`core`), the database (`store`), or what happens inside a pod (`sidecar`).
"""
