"""Authentication: identities from local tokens and hub tokens, and reconciliation of notebook servers with the hub.

Does not belong here: authorization, what an identity may do with a job, which the use case checks.
"""
