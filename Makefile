.PHONY: setup lint test
UV ?= uv
SYNC = $(UV) sync --all-extras

setup: ## install everything into .venv
	@command -v $(UV) >/dev/null || python3 -m pip install --quiet uv
	$(SYNC)

protos: 
	$(UV) run ruff format --check .
	$(UV) run ruff check .
	$(UV) run mypy headrace tests

test: setup ## every test that this machine can run
	$(UV) run pytest
