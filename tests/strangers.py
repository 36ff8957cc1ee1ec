"""A job that kills what watches it, and processes by a word of their command line."""

from __future__ import annotations

import psutil

# A process without environment, session and parent that kills side-car and keeper before it can have been written down. The file
# `stranger` has its pid, its last word is what the program is given.
KILLER = """
import os, sys, time
inner = '''
import json, os, time
open("stranger.new", "w").write(str(os.getpid()))
os.rename("stranger.new", "stranger")
who = json.load(open("../sidecar.json"))
os.kill(who["pid"], 9)
os.kill(who["sidecar"][0], 9)
time.sleep(600)
'''
if os.fork():
    time.sleep(600)
os.setsid()
if os.fork():
    os._exit(0)
os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", inner, "stranger-" + "".join(sys.argv[1:])], {})
"""


def processes_with(word: str) -> list[psutil.Process]:
    """Those of the machine that have it as a word of their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if word in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found
