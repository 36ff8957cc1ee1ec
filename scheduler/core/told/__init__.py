"""What waiting gangs are told, in a form that costs little while nobody reads it, and how well told starts held.

Belongs here: what the state keeps of it from one cycle to the next. Does not belong here: how it is found (`explain`).
"""
