# Everything that a person could call by hand, in the order in which it is needed.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# Where bytecode is unwanted in the tree it goes here: each of many processes would compile everything again.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/bytecode

# Plugins that are there to be tested with, and take a second of each process to import.
QUICK := -p no:html -p no:syrupy -p no:rerunfailures

# One more than processors, since tests often wait for a process.
WORKERS = $(shell echo $$(($$(nproc) + 1)))

.PHONY: bench boot browser causes chaos cockpit trials commands docs pictures site fuzz soak examples hosts images vmtests nix-check nix-vmtests nixos-vmtests gcloud-check test lint house constraints licences audit host clean

vmtests: host $(STAMP)    ## build the reference image, boot it, assert
	$(BIN)/vmtests doctor
	$(BIN)/pytest vmtests/

boot: host $(STAMP)       ## build the reference image and boot it
	$(BIN)/vmtests doctor
	$(BIN)/vmtests boot reference

# In a new environment all is compiled, and read for constants by Hypothesis, once: the workers begin at the same time.
COMPILED := $(VENV)/.compiled

$(COMPILED): $(STAMP)
	$(BIN)/pytest tests/ --collect-only --quiet $(QUICK) >/dev/null || true  # the tests themselves say what is wrong
	touch $@

test: host browser $(COMPILED)  ## test the framework itself, without a VM
	$(BIN)/vmtests doctor
	$(BIN)/pytest tests/ --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder $(QUICK)

trials: host $(COMPILED)  ## the whole from outside, without a VM: harm at a step of each work, fuzzing, commands
	$(BIN)/pytest tests/trials/ --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder $(QUICK)

lint: $(STAMP)            ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/python docs/make_api.py --check

house: $(STAMP)           ## draw docs/architecture.md's imports anew
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/python -m tests.house

causes: $(STAMP)          ## write docs/causes.md again, which a test compares with the tables
	$(BIN)/python -m vmtests.boot.table > docs/causes.md

# Against nixpkgs itself: the flake's own input (needs a network), or a checkout: make nix-check NIXPKGS=/path
INPUT := --no-write-lock-file $(if $(NIXPKGS),--override-input nixpkgs path:$(abspath $(NIXPKGS)))
NIX   := nix --extra-experimental-features 'nix-command flakes'

nix-check:                ## evaluate the NixOS image, and every promise in tests/nix/promises.nix
	$(NIX) flake check --no-build . $(INPUT)
	$(NIX) eval --raw .#packages.x86_64-linux.image.drvPath $(INPUT) && echo
	$(NIX) eval --raw .#packages.x86_64-linux.imageScript.drvPath $(INPUT) && echo
	$(if $(NIXPKGS),$(NIX) eval --impure --json --expr 'import ./tests/nix/real.nix { nixpkgs = $(abspath $(NIXPKGS)); }')

nix-vmtests: host $(STAMP)  ## boot an image that real Nix described, with Debian in the place of NixOS; no nixpkgs needed
	mkdir -p results/nix && chmod -R u+w results/nix && rm -rf results/nix
	$(BIN)/python -m tests.nix.closure.make results/nix
	PATH="$(CURDIR)/results/nix/bin:$$PATH" $(BIN)/pytest vmtests/ --vm-image="nix:path:$(CURDIR)/results/nix/flake#imageScript"

nixos-vmtests: host $(STAMP)  ## build NixOS of a checkout of nixpkgs with Debian's programs, and boot it: NIXPKGS=/path
	@[ -n "$(NIXPKGS)" ] || { echo "make: which nixpkgs? make nixos-vmtests NIXPKGS=/path/of/nixpkgs" >&2; exit 2; }
	$(BIN)/python -m tests.nix.debian.make results/nixos $(abspath $(NIXPKGS))
	$(BIN)/pytest vmtests/ tests/nix/debian/generations.py --vm-image=results/nixos/default.raw
	$(BIN)/pytest vmtests/ --vm-image=results/nixos/image.raw
	for variant in default image overlay-store debug bloat; do \
	  $(BIN)/pytest tests/nix/debian/booted.py -k "every or $$(echo $$variant | tr - _)" --vm-image=results/nixos/$$variant.raw || exit; \
	done

gcloud-check: host $(STAMP)  ## the unmodified gcloud against the emulator, with real machines; needs gcloud
	@command -v gcloud >/dev/null || { echo "make: install the Google Cloud CLI first: https://cloud.google.com/sdk/docs/install" >&2; exit 2; }
	$(BIN)/python -m tests.gcloud.check

# With LOCKED=1, as CI has it, nothing is installed but files whose hashes are in requirements.lock.
$(STAMP): pyproject.toml constraints.txt | host
	$(PYTHON) -m venv $(VENV)
	$(if $(LOCKED),\
	  $(BIN)/pip install --quiet --no-compile --require-hashes --requirement requirements.lock && \
	  $(BIN)/pip install --quiet --no-compile --no-deps --no-build-isolation --editable .,\
	  $(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]')
	touch $@

# Installs what is missing with apt, as root or through sudo, and says so first; elsewhere it says what to install.
# Without bubblewrap it goes, too.
host:
	@[ "$$(uname -m)" = x86_64 ] || { echo "make: this host is $$(uname -m): vmtests boots x86-64 images, on x86-64 Linux only" >&2; exit 2; }; \
	missing=; \
	for need in git:git mmdebstrap:mmdebstrap; do \
	  command -v $${need%%:*} >/dev/null || missing="$$missing $${need##*:}"; \
	done; \
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || missing="$$missing python3-venv"; \
	command -v bwrap >/dev/null && wanted= || wanted=" bubblewrap"; \
	[ -z "$$missing$$wanted" ] && exit 0; \
	if [ "$$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo=sudo; else sudo=none; fi; \
	if ! command -v apt-get >/dev/null || [ "$$sudo" = none ]; then \
	  [ -n "$$missing" ] || exit 0; \
	  echo "make: install first:$$missing$$wanted" >&2; exit 2; \
	fi; \
	missing="$$missing$$wanted"; \
	echo "make: installing with apt:$$missing"; \
	$$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null

# The report's page is opened in one; who may not install it has the other tests, and is told.
# What drives it is a node of its own that wants libatomic, which Debian 12 has no other need of.
browser:
	@missing=; \
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || missing=" chromium"; \
	PATH="$$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null | grep -q 'libatomic\.so\.1 ' || missing="$$missing libatomic1"; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo=sudo; else sudo=none; fi; \
	if command -v apt-get >/dev/null && [ "$$sudo" != none ]; then \
	  echo "make: installing with apt:$$missing"; \
	  $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null && exit 0; \
	fi; \
	echo "make: no browser here (Debian: apt-get install$$missing): the tests of the pages are left out"

hosts: host $(STAMP)      ## run the README's commands on every host, or on HOSTS="NAME NAME", and write the README's table; needs root
	$(BIN)/python -m tests.hosts $(if $(HOSTS),,--readme) $(HOSTS)

fuzz: host $(STAMP)       ## every parser with bytes that mean harm, for FUZZ_SECONDS each (default: 600)
	FUZZ_SECONDS=$${FUZZ_SECONDS:-600} $(BIN)/pytest tests/trials/fuzz -s --numprocesses=$$(nproc)

chaos: host $(STAMP)      ## everything that can happen at every step, without a VM; half an hour
	CHAOS=1 $(BIN)/pytest tests/trials/chaos --numprocesses=$$(nproc) --dist=worksteal

soak: host $(STAMP)       ## 1,000 forks, 100 cold boots, 24 hours of polls: nothing grows; an hour and more
	$(BIN)/python -m bench.soak forks -n 1000
	$(BIN)/python -m bench.soak boots -n 100
	$(BIN)/python -m bench.soak polls --hours 24

images: host $(STAMP)     ## disks and files as other people make them, inspected; BOOT=1 boots those that can, NAMES="NAME NAME"
	$(BIN)/python -m tests.foreign results/images $(if $(BOOT),--boot) $(NAMES)

examples: host $(STAMP)   ## build docs/examples, boot each and run its tests; NAMES="NAME NAME" for some
	$(BIN)/python -m tests.examples results/examples $(NAMES)

commands: host $(STAMP)   ## run the commands of README and docs that boot machines; PAGES="docs/tutorial.md" for some
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.docs $(PAGES)

RUNS := results/bench
WORK := results/bench/work

bench: host $(STAMP)      ## measure, and write the tables in README and docs/building.md: hours, and 40 GB of disk
	$(PYTHON) -m venv $(VENV)/bench
	$(VENV)/bench/bin/pip install --quiet --no-compile --constraint constraints.txt --editable '.[bench]'
	mkdir -p $(WORK)
	rm -f $(RUNS)/*.jsonl
	for store in "1G -n 3" "4G -n 1" "16G --inodes 400000 --distinct 40000 --ways mkfs,ours -n 2"; do \
	  $(VENV)/bench/bin/python bench/build.py --size $$store --work $(WORK) --runs $(RUNS)/build.jsonl \
	    --write docs/building.md || exit; done
	$(VENV)/bench/bin/python bench/compression.py --boot --runs $(RUNS)/compression.jsonl --write docs/building.md
	$(VENV)/bench/bin/python bench/compression.py --bloat 4G --runs $(RUNS)/compression.jsonl --write docs/building.md
	$(VENV)/bench/bin/python bench/table.py

pictures: host browser $(STAMP)  ## draw docs/pictures anew, of recorded boots, in Chromium
	$(BIN)/python -m docs.make_pictures

cockpit: host $(STAMP)    ## record docs/cockpit.svg anew: a boot in the cockpit, in tmux, which is held to what it shows; minutes
	@command -v tmux >/dev/null || { echo "make: install tmux first: apt-get install tmux" >&2; exit 2; }
	$(BIN)/python -m docs.make_cockpit

SITE := results/site

site: | host              ## docs/ as a site, in results/site; a link that leads nowhere is an error
	$(PYTHON) -m venv $(VENV)/site
	$(VENV)/site/bin/pip install --quiet --no-compile --constraint constraints.txt sphinx myst-parser furo
	$(VENV)/site/bin/sphinx-build -q -W --keep-going -b html docs $(SITE)
	@echo $(SITE)/index.html

docs: $(STAMP)            ## write docs/api.md and the man page anew
	$(BIN)/python docs/make_api.py
	$(BIN)/python docs/make_man.py

constraints:              ## pin the newest version of every Python package
	$(PYTHON) -m venv --clear $(VENV)/pins
	$(VENV)/pins/bin/pip install --quiet --editable '.[dev,bench,site]'
	{ sed -n 1p constraints.txt; $(VENV)/pins/bin/pip freeze --exclude-editable; } > constraints.new && mv constraints.new constraints.txt
	$(VENV)/pins/bin/pip install --quiet uv
	echo '# Exact versions and hashes of what make installs, for `pip install --require-hashes`. Remade by `make constraints`.' > requirements.new
	echo editables | $(VENV)/pins/bin/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --extra dev \
	  --no-header --no-annotate --no-emit-index-url --constraint constraints.txt pyproject.toml - >> requirements.new
	mv requirements.new requirements.lock
	rm -rf $(VENV)/pins

licences: $(STAMP)        ## list the Python packages that vmtests needs, with their licences; `vmtests sbom` has the image's
	@$(BIN)/python -m tests.licences

audit:                    ## look for advisories about what requirements.lock has; needs a network
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet pip-audit
	$(VENV)/audit/bin/pip-audit --require-hashes --disable-pip --requirement requirements.lock

clean:                    ## remove what was made here; the cache stays
	rm -rf $(VENV) results .pytest_cache .mypy_cache .ruff_cache
