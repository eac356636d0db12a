# make demo: environment, install, the main job on the built-in scenes.  make test: environment if missing, the tests.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/
# A process for each core, at most 4: each takes up to 2.5 GB. The tests of a file share what they made.
SHARED_OUT := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

demo: $(VENV)/installed
	$(RUN)tag2mask demo --out runs/demo

test: $(VENV)/installed
	$(RUN)ruff check src tests benchmarks docs examples
	$(RUN)ruff format --check src tests benchmarks docs examples
	$(RUN)mypy
	OMP_NUM_THREADS=1 $(RUN)pytest $(SHARED_OUT)

fast: $(VENV)/installed
	OMP_NUM_THREADS=1 $(RUN)pytest $(SHARED_OUT) -m "not slow and not real"

# The documentation site, docs/build/docs/index.html; a warning is an error, and so is a link within it that leads nowhere.
docs: $(VENV)/installed
	$(RUN)python docs/make_settings.py
	$(RUN)python docs/draw_method.py
	$(RUN)python -m sphinx -q -W --keep-going -b html -c docs . docs/build

# Builds the wheel and the source archive, and uses each in an empty environment.
release-check: $(VENV)/installed
	$(RUN)python tests/release_check.py

# Changes the product on purpose, in a copy, and expects the tests to fail: a list by hand; mutants-all adds mutmut, which takes longer.
mutants: $(VENV)/installed
	$(RUN)python tests/mutants/by_hand.py

mutants-all: mutants
	$(RUN)python tests/mutants/by_tool.py

# On a machine with a GPU, install PyTorch for it first; constraints.txt keeps the pair of versions that is tested.
# The pip of Python 3.11 takes minutes to choose versions; a newer one does not.
$(VENV)/installed: pyproject.toml constraints.txt CMakeLists.txt $(wildcard src/tag2mask/crf/native/*)
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(RUN)pip install --quiet --disable-pip-version-check --upgrade pip
	$(RUN)pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(RUN)pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs/demo docs/build

.PHONY: demo test fast docs release-check mutants mutants-all clean
