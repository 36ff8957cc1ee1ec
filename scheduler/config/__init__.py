"""The configuration from `tuttilab.yaml`: clusters, queues, store, authentication, limits.

`file` is the schema of the file, `load` reads and checks it, `model` is the result that the service uses. Does not belong here:
changing it while jobs run (`service.reload`).
"""
