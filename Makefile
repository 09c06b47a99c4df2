# Every target sets up its own environment: `make test` works in a fresh clone.
#   make test      format and lint checks, then all tests
#   make lint      the checks alone
#   make demo      a photo and a sentence become demo.mp4: a face that talks
#   make web       the page: upload a photo, upload or record a sound, watch
#   make readme    the README's pictures, from the model that comes along
#   make hostile   ten thousand files that are almost right, a hundred kills: an hour
#   make smoke     the whole path with tiny networks: train, export, evaluate, animate
#   make format    let ruff format and fix
#   make clean     remove the environment and what the tests left
# With another Python:  make clean && make test PYTHON=python3.13
# Some tests:           make test ARGS="tests/jax_atvg -k metrics"
# In two minutes:       make test ARGS="-m quick"

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
ARGS ?=
# Without requirements/torch.txt the tests that read .pth files are skipped, without
# requirements/beam.txt that of the Beam pipeline, without requirements/web.txt those of
# the page (in a browser: Debian's package chromium is needed as well), and without
# requirements/heic.txt one of photos.
REQUIREMENTS ?= requirements/dev.txt requirements/torch.txt requirements/beam.txt \
	requirements/web.txt requirements/heic.txt

BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

PROGRAM := $(VENV)/program_installed
WEB := $(VENV)/web_installed
# Compiles for a TPU slice, in a folder of its own: next to jax it would look for a TPU.
LIBTPU := $(VENV)/tpu/installed

.PHONY: demo readme web test hostile lint smoke format clean

# The astronaut Eileen Collins (NASA, public domain) comes with scikit-image.
demo: $(PROGRAM)
	$(BIN)/python main.py animate --panels --audio=demo/speech.flac --out=demo.mp4 \
		--image=$$($(BIN)/python -c "import skimage.data as d; print(d.__path__[0])")/astronaut.png

readme: $(PROGRAM)
	$(BIN)/python docs/make_figures.py

web: $(WEB)
	$(BIN)/python main.py serve $(ARGS)

test: lint $(LIBTPU)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

hostile: $(INSTALLED)
	$(BIN)/python -m tests.hostile.kills --kills=100
	$(BIN)/python -m tests.hostile.harness --cases=10000 $(ARGS)

smoke: $(INSTALLED)
	$(BIN)/python -m tests.smoke $(ARGS)

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Made anew whenever a requirement changes; the stamp comes last, so that an
# installation that failed is tried again.  The 19,000 files are compiled by all cores;
# pip would take one.
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile
define install
@echo "Installing $(1) into $(VENV): a minute or two, 2 GB"
@$(PYTHON) -m venv $(VENV)
@$(PIP_INSTALL) $(addprefix -r ,$(1))
@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
endef

# requirements.txt is part of each of the others.
$(INSTALLED): requirements.txt $(REQUIREMENTS)
	$(call install,$(REQUIREMENTS))
	@touch $@ $(PROGRAM) $(WEB)

$(LIBTPU): $(INSTALLED)
	@$(PIP_INSTALL) --no-deps --upgrade --target $(@D) \
		"$$($(BIN)/python -c "$(LIBTPU_OF_JAX)")"
	@touch $@

LIBTPU_OF_JAX := import importlib.metadata as m; \
	print(next(r.split(';')[0] for r in m.requires('jax') if r.startswith('libtpu')))

$(WEB): requirements.txt requirements/web.txt
	$(call install,requirements/web.txt)
	@touch $@ $(PROGRAM)

# What the program needs, without the tests'.
$(PROGRAM): requirements.txt
	$(call install,requirements.txt)
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .hypothesis .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
