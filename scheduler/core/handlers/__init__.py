"""What each event changes in the rows and what is to be done then: a function an event, called by `State.handle` and nobody else.

Each takes the rows, the event and the time, and answers instructions. An event that is late, doubled or about something unknown
changes nothing. Belongs here: the life of jobs, attempts, pods and runs. Does not belong here: which gang starts where
(`core.cycle`), and how a row is kept (`core.rows`).
"""
