"""What a pod gets from the artifact store and gives to it: the bundle's files, outputs, and both by HTTP.

What comes from the store was sent by somebody, and RESULT_DIR is the job's: nothing here trusts either. What a pod needs before its
start is decided in `context`, a room above. Loaded only by pods that have something to fetch or to keep. Standard library only.
"""
