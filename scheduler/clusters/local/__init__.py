"""The cluster on this machine: virtual nodes, and pods that are process groups below one sidecar each.

Belongs here: pod directories, launch, fencing of former leaders, leftovers, logs. `cluster` implements `clusters.base`.
"""
