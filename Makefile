# make quickstart   install, then train, evaluate, export and distill on the bundled sample
# make test         install with the test extras, then lint and run the tests
# make test-all     the same and the tests marked `thorough`: every situation with every method
# make test-docs    run the code blocks of the tutorials, and the notebooks
# make install      .venv with the pinned dependencies and this checkout, editable
# make lint         ruff alone
# make test-package build the wheel and the sdist, and import each once in a new environment
# make test-tfa     record again what tensorflow-addons computes, in a Python 3.11 of its own, and compare
# make test-web     test the page of --formats=web in Chromium; needs node, and installs chromium where root may
# make test-beam    test examples/beam in an environment of its own
# make test-apps    test the arithmetic of examples/android, and with SWIFTC=swiftc that of examples/ios
# make clean        delete what builds and tests leave; .venv and runs stay
#
# PYTHON=python3.12 picks the interpreter for a new .venv; a finished .venv is used as it is. JOBS=4 runs the tests in
# four processes.

PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/quickstart
PYTHON_TFA ?= python3.11
VENV_TFA ?= .venv-tfa
VENV_BEAM ?= .venv-beam
KOTLIN ?= .kotlin
SWIFTC ?=
JOBS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: quickstart test test-all test-docs test-web test-package test-tfa test-beam test-apps install install-test
.PHONY: lint clean

quickstart: install
	$(BIN)/tfi2i train --preset=quickstart --run_dir=$(RUN)
	$(BIN)/tfi2i translate --run_dir=$(RUN) --direction=a2b --batch_size=8 \
	  --input=tfi2i/data/emoji/testA --output=$(RUN)/translated/a2b --overwrite
	$(BIN)/tfi2i translate --run_dir=$(RUN) --direction=b2a --batch_size=8 \
	  --input=tfi2i/data/emoji/testB --output=$(RUN)/translated/b2a --overwrite
	$(BIN)/tfi2i evaluate --run_dir=$(RUN) --split=test
	$(BIN)/tfi2i export --run_dir=$(RUN) --direction=a2b --output=$(RUN)/export --overwrite --model_version=1 \
	  --formats=saved_model,float32,dynamic,int8
	$(BIN)/tfi2i distill --teacher=$(RUN) --direction=a2b --steps=1500 --run_dir=$(RUN)_student
	$(BIN)/tfi2i evaluate --run_dir=$(RUN)_student --split=test
	$(BIN)/tfi2i export --run_dir=$(RUN)_student --output=$(RUN)_student/export --overwrite --formats=float32,int8_full
	@echo
	@echo "Look at   $(RUN)/evaluate.png       held-out drawings: input, translation, truth, way back"
	@echo "          $(RUN)/samples/           how the translations came about"
	@echo "          $(RUN)/export/report.png  the exported files beside the model; README.md says how to use them"
	@echo "          $(RUN)_student/           a network of a twentieth of the work, and in export/ its file for phones"
	@echo "Next      $(BIN)/tfi2i doctor --a=PHOTOS --b=PAINTINGS      what your own pictures are like"
	@echo "          $(BIN)/tfi2i train --preset=cyclegan/own_small --a=PHOTOS --b=PAINTINGS --run_dir=runs/mine"
	@echo "          $(BIN)/tfi2i presets                              what else comes with a configuration"

# Most of a test is Python that builds graphs, on one thread.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist=loadscope
test: lint
	$(PYTEST) -m "not thorough and not docs and not web"

test-all: lint
	$(PYTEST) -m "not docs and not web"

# One page after the other in one folder: later ones use what the quickstart has trained.
test-docs: install-test
	$(BIN)/python -m pytest -m docs tests/test_docs.py tests/test_notebooks.py

# Debian's Chromium, or another one: make test-web CHROMIUM=/path/to/chrome
CHROMIUM ?= $(shell command -v chromium chromium-browser google-chrome | head -1)
test-web: install-test tests/web/node_modules/.installed
	@chromium="$(or $(CHROMIUM),chromium)"; \
	  if ! command -v "$$chromium" > /dev/null && [ "$$chromium $$(id -u)" = "chromium 0" ]; then \
	    apt-get update --quiet=2 && apt-get install --quiet --yes --no-install-recommends chromium; fi; \
	  command -v "$$chromium" > /dev/null || { echo "make: there is no $$chromium; on Debian: apt install chromium;" \
	    "or make test-web CHROMIUM=/path/to/chrome" >&2; exit 1; }; \
	  LITERT_JS="$$(ls tests/web/node_modules/*.tgz)" CHROMIUM="$$(command -v "$$chromium")" \
	    $(BIN)/python -m pytest -m web tests/test_web.py

# In a folder where no checkout can be imported instead.
test-package: install
	rm -rf build dist && $(BIN)/python -c "from setuptools import build_meta as b; b.build_wheel('dist'); b.build_sdist('dist')"
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(PYTHON) -m venv "$$folder/venv" && \
	  "$$folder/venv/bin/python" -m pip --disable-pip-version-check install --quiet -r requirements/runtime.txt && \
	  for package in "$(CURDIR)"/dist/*.whl "$(CURDIR)"/dist/*.tar.gz; do ( cd "$$folder" && \
	    venv/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation \
	      --force-reinstall "$$package" && \
	    venv/bin/python -c "import tfi2i.export, tfi2i.layers; print(tfi2i.__version__, [getattr(tfi2i, n) for n in tfi2i.__all__])" && \
	    for preset in $$(venv/bin/tfi2i presets | cut -d' ' -f1); do \
	      command=$$(venv/bin/tfi2i presets $$preset | sed -n '1s/^# tfi2i \([a-z]*\) .*/\1/p') && \
	      venv/bin/tfi2i $$command --preset=$$preset --run_dir=none --print_config > /dev/null || exit 1; \
	    done ) || exit 1; done

# What was recorded lies beside what is recorded now only until they are compared.
test-tfa: $(VENV_TFA)/.installed
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	  $(VENV_TFA)/bin/python tools/make_golden_tfa.py --output="$$folder" --check=tests/golden

# Apache Beam wants an older protobuf than the environment above has.
test-beam: $(VENV_BEAM)/.installed
	$(VENV_BEAM)/bin/python -m pytest examples/beam

# By the Kotlin that the app is built with.
test-apps: install-test $(KOTLIN)/.installed
	@$(if $(SWIFTC),,echo "make: examples/ios is not tested; make test-apps SWIFTC=swiftc tests it too")
	KOTLINC="$(CURDIR)/$(KOTLIN)/node_modules/kotlin-compiler/bin/kotlinc" SWIFTC="$(SWIFTC)" \
	  $(BIN)/python -m pytest examples/test_pictures.py

install: $(VENV)/.installed

install-test: $(VENV)/.installed-test

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache tests/web/node_modules
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) > /dev/null || { \
	  echo "make: there is no $(PYTHON); tfi2i needs Python 3.11, 3.12 or 3.13:" \
	    "make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
	  echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1); tfi2i needs Python 3.11, 3.12 or 3.13:" \
	    "make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
	  echo "make: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu:" \
	    "apt install python$$($(PYTHON) -c \
	    'import sys; print("%d.%d" % sys.version_info[:2])')-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The build tool is one of the pins, hence no isolated environment with another one.
$(VENV)/.installed: requirements/runtime.txt setup.py pyproject.toml | $(BIN)/python
	$(PIP) install --quiet -r requirements/runtime.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-test: requirements/test.txt $(VENV)/.installed
	$(PIP) install --quiet -r requirements/test.txt
	@touch $@

# The last tensorflow-addons is for Python 3.11 at most, and for Keras 2: it cannot be in the environment above.
$(VENV_TFA)/.installed: requirements/tfa.txt
	@command -v $(PYTHON_TFA) > /dev/null || { \
	  echo "make: there is no $(PYTHON_TFA), which tensorflow-addons needs: make test-tfa" \
	    "PYTHON_TFA=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON_TFA) -m venv $(VENV_TFA)
	$(VENV_TFA)/bin/python -m pip --disable-pip-version-check install --quiet -r $<
	@touch $@

$(VENV_BEAM)/.installed: requirements/beam.txt
	$(PYTHON) -m venv $(VENV_BEAM)
	$(VENV_BEAM)/bin/python -m pip --disable-pip-version-check install --quiet -r $<
	@touch $@

tests/web/node_modules/.installed: tests/web/package.json export/web.py $(VENV)/.installed
	@command -v npm > /dev/null || { echo "make: there is no npm; on Debian: apt install npm" >&2; exit 1; }
	cd tests/web && rm -rf node_modules && npm install --no-audit --no-fund --loglevel=error
	cd tests/web/node_modules && npm pack --loglevel=error \
	  "$$($(abspath $(BIN)/python) -c 'from tfi2i.export import web; print(web.PACKAGE)')"
	@touch $@

$(KOTLIN)/.installed: examples/android/gradle/libs.versions.toml
	@for program in npm java; do command -v $$program > /dev/null || { \
	  echo "make: there is no $$program, which test-apps needs; on Debian and Ubuntu:" \
	    "apt install npm default-jre-headless" >&2; exit 1; }; done
	npm install --silent --no-save --prefix $(KOTLIN) kotlin-compiler@$$(sed -n 's/^kotlin = "\(.*\)"/\1/p' $<)
	chmod +x $(KOTLIN)/node_modules/kotlin-compiler/bin/kotlinc
	@touch $@
