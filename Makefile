# make lab    set everything up, then open the tutorial in JupyterLab
# make test   set everything up, then run the tests and every notebook
# make app    set everything up, then open the explorer as a page of its own
# make publish REPO=owner/name    badges and install lines for a place on GitHub; without REPO they go again
#
# make site [SERVE=1]    write the tutorial and the explorer as static pages to _site, and show them
#
# Another Python:  make test PYTHON=python3.12        More for JupyterLab:  make lab LAB="--no-browser --port 9999"
# More for the explorer:  make app APP="--model path/to/run"

PYTHON ?= python3
VENV ?= .venv
LAB ?=
APP ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Tests and committed outputs use the drawn faces, so they must not find a reader's prepared Kaggle faces.
test-package test-notebooks notebooks images site: export VAELIB_CACHE = $(CURDIR)/.cache

.PHONY: lab app test test-package test-notebooks lint format notebooks images publish site benchmark clean

lab: $(READY)
	$(BIN)/jupyter lab $(LAB) notebooks/01_faces.ipynb

app: $(READY)
	$(BIN)/python -m vaelib explore $(APP)

# Both run, whatever becomes of the first.
test: $(READY)
	@$(MAKE) --keep-going test-package test-notebooks

test-package: $(READY)
	$(BIN)/python -m pytest

# Two at a time, on a core each.
test-notebooks: export OMP_NUM_THREADS = 1
test-notebooks: $(READY)
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadscope --nbval --nbval-current-env --timeout=3600 \
		--nbval-cell-timeout=3000 notebooks

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Run every notebook and store its outputs, without widget state: that doubles a file and breaks its view on GitHub.
notebooks: $(READY)
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.store_widget_state=False \
		--ExecutePreprocessor.record_timing=False notebooks/*.ipynb notebooks/solutions/*.ipynb
	$(BIN)/python notebooks/describe.py

# The pictures in README.md, from the shipped weights and drawn faces.
images: $(READY)
	$(BIN)/python images/make_images.py
	$(BIN)/python images/make_explorer_images.py

publish: $(READY)
	$(BIN)/python notebooks/publish.py $(REPO)

site: $(READY)
	$(BIN)/python site/build.py $(if $(SERVE),--serve)

# How fast faces are prepared, opened and drawn, and a training step. With Kaggle's archives:
#     make benchmark FACES=folder/with/both/zips
benchmark: $(READY)
	$(BIN)/python tests/benchmarks/data.py $(if $(FACES),--faces $(FACES))
	$(BIN)/python tests/benchmarks/training.py $(if $(FACES),--faces $(FACES)/animefacedataset.zip)
	$(BIN)/python tests/benchmarks/precision.py $(if $(FACES),--faces $(FACES)/animefacedataset.zip)
	$(BIN)/python tests/benchmarks/quality.py
	$(BIN)/python tests/benchmarks/explorer.py

clean:
	rm -rf $(VENV) .cache _site .pytest_cache .ruff_cache *.egg-info

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else \
		"This needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is %d.%d: make ... PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install --editable ".[test,app,site]"
	@touch $@
