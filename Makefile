# Everything that a person could call by hand, in the order in which it is needed.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: vmtests test lint constraints host clean

vmtests: host $(STAMP)    ## build the reference image, boot it, assert
	$(BIN)/vmtests doctor
	$(BIN)/pytest vmtests/

test: host $(STAMP)       ## test the framework itself, without a VM
	$(BIN)/pytest tests/

lint: $(STAMP)            ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(STAMP): pyproject.toml constraints.txt | host
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# Installs what is missing with apt, as root or through sudo, and says so first; elsewhere it says what to install.
host:
	@missing=; \
	for need in git:git mmdebstrap:mmdebstrap bwrap:bubblewrap; do \
	  command -v $${need%%:*} >/dev/null || missing="$$missing $${need##*:}"; \
	done; \
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || missing="$$missing python3-venv"; \
	[ -e /usr/share/keyrings/debian-archive-trixie-stable.gpg ] || missing="$$missing debian-archive-keyring"; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo=sudo; else sudo=none; fi; \
	if ! command -v apt-get >/dev/null || [ "$$sudo" = none ]; then \
	  echo "make: install first:$$missing" >&2; exit 2; \
	fi; \
	echo "make: installing with apt:$$missing"; \
	$$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null

constraints:              ## pin the newest version of every Python package
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	{ sed -n 1p constraints.txt; $(BIN)/pip freeze --exclude-editable; } > constraints.new && mv constraints.new constraints.txt

clean:                    ## remove what was made here; the cache stays
	rm -rf $(VENV) results .pytest_cache .mypy_cache .ruff_cache
