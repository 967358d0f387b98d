# The verbs of this repository. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup protos protos-freeze release-freeze format lint test test-long test-process kube-binaries e2e-images e2e e2e-transcript kueue failures operator-kills recoveries lives plans demo bench reproduce-rubick reproduce-pitot crds chart-docs docs clean

# uv from the path, or one of our own beside the environment.
UV := $(shell command -v uv || echo .uv/bin/uv)
RUN := $(UV) run --no-sync
# Tests run side by side on this many workers.
WORKERS ?= 2
REPEAT ?= 20
LIVES ?= 2000
WALKS ?= 20
# Of what a Kubernetes for tests is made: 2 has nodes that only seem to run, 3 a real one.
TIER ?= 2
# What Python has compiled is kept: torch alone takes 7 s to compile, in each process that starts.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the verbs
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.uv/bin/uv:
	@{ python3 -m venv .uv && .uv/bin/python -m pip install --quiet uv; } \
	  || { rm -rf .uv; echo "install uv, or python3-venv and pip, then try again"; exit 1; }

setup: | $(filter .uv/bin/uv,$(UV)) ## install everything into .venv, exactly as locked
	@$(UV) sync --all-extras --locked

protos: setup ## write the Python stubs of protos/
	$(RUN) python protos/generate.py

# Only at a release: what later changes must stay compatible with.
protos-freeze: setup ## keep today's protos as the image of the current version
	cd protos && $(abspath .venv/bin/buf) build -o ../tests/fixtures/protos-0.1.0.binpb

# Only at a release, into tests/fixtures/VERSION: what later versions are upgraded from.
release-freeze: setup ## keep today's chart and a store of today as the fixture of the current version
	$(RUN) python tests/fixtures/freeze_release.py

format: setup ## format the sources and fix what ruff can fix
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

lint: setup ## formatting, ruff, mypy --strict, import contracts, buf
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	$(RUN) lint-imports
	cd protos && $(abspath .venv/bin/buf) lint

# One run with one closing line. Tests that share a cluster run one after the other on one worker,
# so do those that share a Ray, the rest wherever there is room (tests/conftest.py sees to it).
test: setup ## every test that this machine can run, but the long ones, in random order
	$(RUN) pytest -rs -m "not long" -n $(WORKERS) --dist loadscope --no-loadscope-reorder

test-long: setup ## the tests that take too long for every day; CI runs them too
	$(RUN) pytest -rs -m long -n $(WORKERS) --dist loadscope --no-loadscope-reorder

test-process: setup ## only the tests that start real processes
	$(RUN) pytest -rs -m process

kube-binaries: setup ## build what tests against a real Kubernetes need, with Go; cold 12 to 22 minutes
	$(RUN) python -m tests.kubernetes.build_binaries --tier $(TIER)

e2e-images: setup ## build the images of deploy/images without a registry, for make e2e; as root
	$(RUN) python -m tests.kubernetes.real_node.build_images

e2e: ## install the chart on a real kubelet, train, upgrade and uninstall; as root, on Linux
	@$(MAKE) kube-binaries e2e-images TIER=3
	HEADRACE_E2E=1 $(RUN) pytest -rs -n0 --timeout=0 tests/kubernetes/e2e

e2e-transcript: ## write a page of commands and what a real node answers; as root, on Linux
	@$(MAKE) kube-binaries e2e-images TIER=3
	$(RUN) python -m tests.kubernetes.e2e.transcript

kueue: setup ## build Kueue with Go, and test the hand-shake with it
	$(RUN) python -m tests.kubernetes.build_binaries kueue
	HEADRACE_KUBE_REQUIRED=1 $(RUN) pytest -rs tests/kubernetes/operator/test_kueue.py

failures: setup ## the tests that kill real processes, REPEAT=20 times in a row
	@for round in $$(seq 1 $(REPEAT)); do \
	  echo "round $$round of $(REPEAT)"; \
	  $(RUN) pytest -rs -m failure || exit 1; \
	done

operator-kills: setup ## kill the operator of Kubernetes at each call of a job's life, before and after it
	HEADRACE_ALL_KILLS=1 $(RUN) pytest -rs tests/kubernetes/operator/test_failures.py

recoveries: setup ## upgrade from each earlier release on a real API server, and lose and restore its parts
	HEADRACE_RECOVERIES=1 $(RUN) pytest -rs tests/kubernetes/test_upgrade.py \
	  tests/kubernetes/operator/test_disasters.py

plans: setup ## every feasible plan of 1, 2 and 4 ranks, WALKS=20 random walks, and long ones over sizes
	HEADRACE_ALL_PLANS=1 HEADRACE_WALKS=$(WALKS) \
	  $(RUN) pytest -rs --timeout=0 tests/workloads/test_plan_matrix.py tests/workloads/test_resizing.py

lives: setup ## LIVES=2000 random worlds and lives of each property test, others each time
	HEADRACE_LIVES=$(LIVES) $(RUN) pytest -q --timeout=0 tests/property

demo: setup ## a cluster, three jobs under rubick, why each runs as it does, and a report, in 2 minutes
	$(RUN) headrace demo

bench: setup ## the benchmarks, as ratios measured side by side
	@for script in benchmarks/[a-z]*.py; do \
	  echo "== $$script"; \
	  $(RUN) python "$$script" || exit 1; \
	done

reproduce-rubick: setup ## play Rubick beside other policies, DATA=folder with rubick/ and traces/
	@test -n "$(DATA)" || { echo 'wanted DATA=DIR, a folder with rubick/ and traces/'; exit 2; }
	$(RUN) python benchmarks/reproduce_rubick.py --data $(DATA)

reproduce-pitot: setup ## learn Pitot's data set and write how well, DATA=folder with pitot/
	@test -n "$(DATA)" || { echo 'wanted DATA=DIR, a folder with pitot/'; exit 2; }
	$(RUN) python benchmarks/reproduce_pitot.py --data $(DATA)

crds: setup ## write the custom resources of deploy/helm/headrace/files/crds
	$(RUN) python -m operators.crds deploy/helm/headrace/files/crds

chart-docs: setup ## write the README of the Helm chart from its values.yaml
	$(RUN) python deploy/helm/generate_readme.py

docs: setup ## write docs/cli.md and docs/manifest.md, and check what the documents point to
	$(RUN) python -m headrace.cli.reference docs
	$(RUN) pytest -q tests/architecture/test_documents.py

clean: ## remove what the verbs above made, except .venv
	rm -rf build dist out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .uv
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
