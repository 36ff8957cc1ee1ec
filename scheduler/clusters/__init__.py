"""One `Cluster` protocol for all kinds of clusters, and its implementations.

Belongs here: driving a place where pods run (processes on this machine, a fake) and translating its errors.
Does not belong here: deciding what runs where (`core`), the database (`store`), or what happens inside a pod (`sidecar`).
"""
