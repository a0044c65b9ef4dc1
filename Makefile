# The five commands that a contributor needs; `make check` is what CI runs, without the fresh environment.
.PHONY: setup test check fix docs

setup: ## install edgeelad with everything that the tests and the documentation need
	python -m pip install -e '.[distill,test,docs]'

test: ## run the tests
	python -m pytest -q

check: test ## run the tests, lint, types, documentation, and the wheel installed alone
	ruff check .
	ruff format --check .
	mypy
	mkdocs build --strict --quiet
	python -m pytest -q -m wheel

fix: ## mend what ruff can mend
	ruff check --fix .
	ruff format .

docs: ## serve the documentation on http://127.0.0.1:8000 while you edit it
	mkdocs serve
