"""Where the pods of a gang go: nodes as arrays, free room, fit, exact search, and the prefilter for many unlike gangs.

Belongs here: rules that look at nodes and pods only. Does not belong here: who is served next (`ordering`), or quota.
"""
