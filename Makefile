# Every command of the project; `make help` lists them. Arguments pass through:
#   make train ARGS="model=MODEL seed=3"

PYTHON ?= python3
ARGS ?=
NAME ?=
KIND ?=
KEEP ?=
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m

# uv is faster than pip, where it is installed; both take the versions of the lock.
UV := $(shell command -v uv 2>/dev/null)
MAKE_VENV = $(if $(UV),$(UV) venv --quiet --clear --python $(PYTHON),$(PYTHON) -m venv --clear)
PIP = $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(RUN) pip install --quiet \
	--disable-pip-version-check) -c requirements.lock

.DEFAULT_GOAL := help
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*/\1/p' Makefile)
# The owner's tests and the contract of every model; folders that were deleted are left out.
YOURS = $(wildcard tests/test_*.py tests/models tests/data tests/figures tests/guests)

# "##@" opens a group of the help, "##" puts a target into it, "#" among those that it only names.
help: # list the targets
	@awk -F ':.*## ' '/^##@ / {printf "%s%s\n", sep, substr($$0, 5); sep = "\n"} \
		/^[a-z-]+:.*## / {printf "  %-13s %s\n", $$1, $$2} \
		/^[a-z-]+:[^#]* # / {split($$0, part, ":"); more = more " " part[1]} \
		END {printf "\nmore:%s\n", more}' Makefile

##@ Run

setup: $(VENV)/.dev ## create .venv with all dependencies, and the schemas that editors use
	@$(RUN) src.kindling.cli.json_schema

train: $(VENV)/.base ## train a model: ARGS="model=fizzbuzz seed=1"
	@$(RUN) src.train $(ARGS)

evaluate: $(VENV)/.base ## test a trained model: ARGS="run=latest"
	@$(RUN) src.evaluate $(ARGS)

predict: $(VENV)/.base ## ask a trained model: ARGS="run=latest output=answers.csv"
	@$(RUN) src.predict $(ARGS)

compare: $(VENV)/.base ## compare settings over seeds: ARGS="logs/train/fizzbuzz last=6"
	@$(RUN) src.compare $(ARGS)

study: $(VENV)/.study ## search settings: ARGS="study.name=x 'optimizer.lr=interval(0.01, 0.1)'"
	@$(RUN) src.study $(ARGS)

report: $(VENV)/.base ## a run, or several, as one HTML file: ARGS="run=latest"
	@$(RUN) src.report $(ARGS)

export: $(VENV)/.export # the model as one file: ARGS="run=latest format=onnx"
	@$(RUN) src.export $(ARGS)

serve: $(VENV)/.serve # answer over HTTP on 127.0.0.1: ARGS="run=latest port=8000"
	@$(RUN) src.serve $(ARGS)

tour: $(VENV)/.base ## run the tutorials: ARGS=autograd; without it, list the chapters
	@$(RUN) src.tour $(ARGS)

tensorboard: $(VENV)/.base ## show all runs on http://localhost:6006: ARGS="--port 7007"
	@# Not logs itself: it would follow the link logs/latest and show that run twice.
	@$(RUN) tensorboard.main --logdir logs/train --host 127.0.0.1 $(ARGS)

##@ Your own project

new: $(VENV)/.base ## write a model that trains at once: NAME=my_model KIND=classifier; alone, list kinds
	@$(RUN) src.kindling.cli.new "$(NAME)" "$(KIND)"

mine: $(VENV)/.base ## turn this copy into your project: NAME=my-project KEEP=fizzbuzz (or nothing)
	@$(RUN) src.kindling.cli.mine "$(NAME)" "$(KEEP)"

update: ## bring the engine up to date from the git remote called kindling
	@git remote get-url kindling >/dev/null 2>&1 || { echo "error: there is no git remote called\
	 kindling; add it once: git remote add kindling URL" >&2; exit 2; }
	@git fetch --quiet kindling && git restore --source=kindling/main -- src/kindling tests/kindling
	@$(MAKE) --no-print-directory check test

check: $(VENV)/.base ## compose and validate every YAML of conf/, without training
	@$(RUN) src.kindling.cli.check

schema: $(VENV)/.base # renew .schema/, from which editors complete and check the YAMLs
	@$(RUN) src.kindling.cli.json_schema

##@ Checks

test: $(VENV)/.dev ## run your tests and the contract of every model (a minute): ARGS="-k fizzbuzz"
	@$(RUN) pytest -m "not slow and not services" $(YOURS) $(ARGS)

test-all: $(VENV)/.dev ## run all tests, the engine's too (minutes): ARGS="-k resume"
	@$(RUN) pytest $(ARGS)

test-gpu: $(VENV)/.dev # run the tests that need a GPU, on a machine that has one
	@$(RUN) pytest -n 0 -m gpu $(ARGS)

test-services: $(VENV)/.services $(VENV)/slurm # run the tests of W&B, MLflow, SLURM, PostgreSQL, the next Hydra
	@$(RUN) pytest -n 0 -m services $(ARGS)

test-browser: $(VENV)/.browser # the dashboards and a report in a real Chromium or Chrome, which must be there
	@$(RUN) pytest tests/browser -o addopts= -o python_files='browser_*.py' $(ARGS)

screenshots: $(VENV)/.browser # renew the README's pictures of the dashboards and of a report
	@PICTURES=.github $(RUN) pytest tests/browser -o addopts= -o python_files='browser_*.py' \
		-k 'three_questions or what_it_shows'

soak: $(VENV)/.dev ## run the long tests of kills and faults (minutes each): ARGS="-k kills"
	@$(RUN) pytest tests/soak -o addopts= -o python_files='soak_*.py' -o python_functions='soak_*' -s $(ARGS)

mutants: $(VENV)/.dev # break the engine in many places; the tests must notice (an hour): ARGS="resume"
	@$(RUN) tests.kindling.mutants $(ARGS)

lint: $(VENV)/.dev ## check style and find common mistakes
	@$(RUN) ruff check . $(ARGS)
	@$(RUN) ruff format --check .

format: $(VENV)/.dev ## rewrite the code in the project's style
	@$(RUN) ruff check --fix . $(ARGS)
	@$(RUN) ruff format .

typecheck: $(VENV)/.dev ## check the types of src/
	@$(RUN) mypy $(ARGS)

bench: $(VENV)/.dev ## measure the overhead over hand-written loops (minutes): ARGS="fizzbuzz"
	@$(RUN) tests.benchmarks $(ARGS)

##@ Maintenance

clean: ## remove .venv, caches and build output
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

clean-logs: ## remove all runs
	@find logs -mindepth 1 -maxdepth 1 ! -name .gitkeep -exec rm -rf {} +

lock: # renew requirements.lock: ARGS="torch==2.13.0" holds a version
	@rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	@$(VENV)-lock/bin/python -m pip install --quiet $(ARGS) -e '.[dev,browser,study]'
	@{ sed '/^[^#]/,$$d' requirements.lock; $(VENV)-lock/bin/python -m pip freeze --exclude-editable \
		| sed 's/+.*//' | grep -v -i -E '^(nvidia|triton|cuda)'; } > $(VENV)-lock/requirements.lock
	@mv $(VENV)-lock/requirements.lock . && rm -rf $(VENV)-lock

# What users run, and what developers run on top. Remade when the dependencies change.
$(VENV)/.base: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer\
	 is needed, and $(PYTHON) is not; name one with make PYTHON=python3.12" >&2; exit 2; }
	@echo "installing the locked dependencies into $(VENV) (minutes, once)"
	@$(BIN)/python -c '' 2>/dev/null || $(MAKE_VENV) $(VENV)
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/.services: $(VENV)/.dev
	@$(PIP) -e '.[dev,wandb,mlflow,dvclive,study,export,serve,launchers]' scipy
	@touch $@

# Debian's SLURM, unpacked where no PATH finds it: with an `srun`, Lightning expects a job.
SLURM := slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge libmunge2 libhwloc15
$(VENV)/slurm: $(VENV)/.services
	@mkdir -p $@
	@cd $@ && if command -v apt-get >/dev/null && apt-get download -qq $(SLURM) 2>/dev/null; then \
		for package in *.deb; do dpkg -x $$package . && rm $$package; done; \
	else echo "the tests of SLURM are left out: apt-get has no such packages here" >&2; fi
	@touch $@

$(VENV)/.study: $(VENV)/.base
	@$(PIP) -e '.[study]'
	@touch $@

$(VENV)/.export: $(VENV)/.base
	@$(PIP) -e '.[export]'
	@touch $@

$(VENV)/.serve: $(VENV)/.base
	@$(PIP) -e '.[serve]'
	@touch $@

$(VENV)/.browser: $(VENV)/.dev
	@$(PIP) -e '.[browser]'
	@touch $@
