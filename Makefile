# What can be done here. Each target first makes .venv ready (tools/env.sh; nothing to do when it is).
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo lab test check bench bench-kube soak attack lock newest kube-tools kube-up kube-down clean env
export PYTHON

help: ## this list
	@echo "make TARGET, one of:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14
	@echo "Needs Python 3.11 or newer and nothing else; neither Java nor Node. All of it stays in this folder;"
	@echo "what was fetched is kept in ~/.cache for the next time."

env:
	@tools/env.sh

demo: env ## see it work: a gang, a queue, a Spark session on this machine; CLUSTER=kube, as root: a gang in containers
	@.venv/bin/python examples/demo.py --cluster $(or $(CLUSTER),local)

lab: env ## JupyterLab with everything on
	@.venv/bin/tuttilab lab

test: env ## every test and check, the time of each part, what was left out and why
	@.venv/bin/python tools/run_tests.py all

check: env ## what a commit has to pass: lint, types, architecture, unit and property tests (under 5 minutes)
	@.venv/bin/python tools/run_tests.py check

bench: env ## the benchmarks, with their figures; ONLY=policy JOBS=1000 SEEDS=1
	@.venv/bin/python -m tests.benchmarks.run $(if $(ONLY),--only $(ONLY)) $(if $(JOBS),--jobs $(JOBS)) $(if $(SEEDS),--seeds $(SEEDS))

bench-kube: env ## pods a second on a real API server, beside a plain loop and kube-scheduler (hours); PODS=2000 NODES=200 ONLY=shapes, restart or spawns
	@.venv/bin/python -m tests.benchmarks.kube --pods $(or $(PODS),10000) --nodes $(or $(NODES),1000) \
	--restart-pods $(or $(RESTART_PODS),30000) --restart-nodes $(or $(RESTART_NODES),5000) $(if $(ONLY),--only $(ONLY))

soak: env ## the simulations and fault tests with many more examples (hours); KILLS=1000 TAKEOVERS=50 SEEDS=50000 MINUTES=30
	@TUTTILAB_DOSE_KILLS=$(KILLS) TUTTILAB_DOSE_TAKEOVERS=$(TAKEOVERS) TUTTILAB_DOSE_SEEDS=$(SEEDS) TUTTILAB_DOSE_MINUTES=$(MINUTES) \
	.venv/bin/python tools/run_tests.py soak

attack: env ## the attack corpus with many more rounds (an hour); SEED=7 takes other ones
	@TUTTILAB_ATTACK_SEED=$(SEED) .venv/bin/python tools/run_tests.py attack

lock: env ## lock.txt, constraints.txt and npm's locks from their ranges; UPGRADE="pydantic httpx", UPGRADE=all for newer versions
	@.venv/bin/python -m tools.lock "$(UPGRADE)" "$(BEFORE)"

newest: env ## try the newest versions that setup.cfg allows, in .venv-newest; PARTS=all runs every part of the tests there
	@.venv/bin/python -m tools.newest $(or $(PARTS),check)

kube-tools: env ## the servers of a test Kubernetes, built from Go modules, once (needs Go; 10 to 25 minutes)
	@.venv/bin/python -m tests.kube.tools.build

kube-up: env ## a Kubernetes with two nodes and a hub on this machine, as root: prints where they are and how to go on
	@.venv/bin/python -m tests.kube.up up

kube-down: env ## end it; nothing of it is left
	@.venv/bin/python -m tests.kube.up down

clean: ## remove caches, builds and links (the environments stay: rm -r .venv .venv-newest)
	@rm -rf .types .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist labextension/dist labextension/lib
	@find . -path './.venv*' -prune -o -path ./.git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
