"""The JupyterHub side: a spawner that starts a notebook server as a job of kind `notebook`.

Traits and hooks, the profile list, volumes and the pod patch belong here, and the notebook's entry in the scheduler's
ledger. Quota and placement do not: the spawner asks the control plane through its client and shows the answer. The pod
patch is pure (plain arguments in, manifest out); nothing here opens a connection of its own to a cluster.
"""
