"""The process beside a job's user code: heartbeats, the barrier, inputs and outputs, and the gang's master.

Standard library only, so that it starts in a tenth of a second in any image. Decides nothing about placement or quota.
"""
