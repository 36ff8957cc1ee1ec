"""What runs in the containers of our own image that stand beside the user's in a pod of Kubernetes.

Three programs, started by `__main__`: ``prepare`` (folders, code, inputs), ``member`` (the side-car: barrier, lease, outputs) and
``master`` (the master of a gang). Standard library only, as everything in the room above. The user's container runs its command
itself and has nothing of ours but environment, a volume and a probe. ADR 26 says why.
"""
