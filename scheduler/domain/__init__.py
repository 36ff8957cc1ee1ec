"""The shared vocabulary: jobs, gangs, queues, amounts, events, instructions, errors, requests, and their JSON.

Belongs here: frozen values, the error tree, and the strict readers of JSON and YAML. Read `model` first.
Does not belong here: anything that decides, waits or keeps state.
"""
