# make demo: from nothing to faces. make test, make lint: what CI runs. Everything is installed into .venv beside this file.
PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/.installed

.PHONY: demo test test-slow lint format install clean

install: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "facegen needs Python 3.11 or newer; type make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)
	$(PY) train.py experiment=demo run_dir=runs/demo
	$(PY) sample.py ckpt=runs/demo n=64 seed=1000 out=runs/demo/faces
	$(PY) sample.py ckpt=runs/demo figure=denoise n=16 seed=1000 out=runs/demo/denoise
	@echo
	@echo "faces:          runs/demo/faces/sheet.png"
	@echo "denoising:      runs/demo/denoise/denoise.png and denoise.webp"
	@echo "loss curve:     runs/demo/loss.png"

test: $(STAMP)
	$(PY) -m pytest

test-slow: $(STAMP)
	$(PY) -m pytest -m slow

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m basedpyright

format: $(STAMP)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:
	rm -rf .venv runs
