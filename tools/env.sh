#!/bin/sh
# Make .venv ready, or do nothing when it is: what was installed is remembered as a key of everything that decides it
# (the place, lock.txt, pyproject.toml, and setup.cfg up to the settings of the checkers), and so is what the panel was built from.
set -eu
cd "$(dirname "$0")/.."

key=$({ pwd; cat lock.txt pyproject.toml tools/environment.py tools/locked.py; sed '/^\[tool:pytest\]/,$d' setup.cfg; } | cksum)
panel=$(find labextension -name node_modules -prune -o -name dist -prune -o -name lib -prune -o -name tests -prune \
    -o -type f -print | LC_ALL=C sort | xargs cat | cksum)
if [ -x .venv/bin/python ] && [ "$(cat .venv/install.key 2>/dev/null)" = "$key" ]; then
    if [ -f labextension/dist/package.json ] && [ "$(cat .venv/panel.key 2>/dev/null)" = "$panel" ]; then
        exit 0
    fi
    exec .venv/bin/python -m tools.environment "" "$panel"
fi

# A name on PATH is not yet a Python that runs: each candidate is tried.
for candidate in ${PYTHON:-} .venv/bin/python python3 python3.11 python3.12 python3.13 python3.14 python; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        exec "$candidate" -m tools.environment "$key" "$panel"
    fi
done

cat >&2 <<'REMEDY'
No Python 3.11 or newer with its venv module was found on PATH (tried python3, python3.11 to python3.14, python).
Install one (Debian 12, Ubuntu 24.04: apt-get install python3 python3-venv), or name yours: make PYTHON=/path/to/python3.12 …
REMEDY
exit 1
