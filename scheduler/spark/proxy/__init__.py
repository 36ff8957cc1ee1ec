"""The Spark proxy: one gRPC address for the sessions of all users, in a process of its own.

It authenticates the caller, asks the control plane where the caller's session is, and relays messages as the bytes they are. It has
no state that a restart would lose. Does not belong here: who the caller is and whose a session is, which the control plane decides.
"""
