# Every habit of this project has a target here; people and CI run the same ones. `make` lists them.
# Set-up happens by itself, once: stamp files in .venv say what is installed, and are out of date when
# pyproject.toml or constraints.txt is newer.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
APT := DEBIAN_FRONTEND=noninteractive apt-get
DOVECOT := dovecot-core dovecot-imapd dovecot-pop3d

# A candidate counts when it runs and is new enough: a version manager's shim may be there and start nothing.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo "$$python"; break; fi; done)

# $(call apt,what needs them,packages): installs where we are root, else says the one line to run.
define apt
if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	echo "$(1): installing $(2)"; \
	$(APT) update -qq && $(APT) install -y -qq --no-install-recommends $(2) >/dev/null; \
else \
	echo "$(1). Run this once, then make again:" >&2; \
	echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends $(2)" >&2; \
	exit 1; \
fi
endef

##@ To see what it is

.PHONY: help
help: ## List everything (the default)
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: $(VENV)/ready-demo ## Snapshot a mailbox, lose mail in three ways, restore it, prove it
	@$(BIN)/backupd demo

##@ To work on it

.PHONY: test
test: $(VENV)/ready-test dovecot $(BIN)/promtool systemd-analyze ## All tests, on a real mail server; with real mail too where BACKUPD_CORPUS names its folder
	@$(BIN)/python -m pytest -n auto --dist loadgroup -q

.PHONY: test-systemd
test-systemd: $(VENV)/ready-test dovecot machine ## The service on a machine with a real systemd: root, a few minutes, 350 MB in .cache
	@$(BIN)/python -m pytest -q -m systemd tests/systemd

.PHONY: lint
lint: $(VENV)/ready-dev ## ruff
	@$(BIN)/ruff check .

.PHONY: types
types: $(VENV)/ready-dev ## mypy --strict
	@$(BIN)/mypy --strict

.PHONY: bench
bench: $(VENV)/ready-test dovecot ## Measure beside mbsync, restic and borg; writes docs/benchmarks.md (ARGUMENTS="--quick" for a look)
	@$(BIN)/python -m bench $(ARGUMENTS)

.PHONY: constraints
constraints: ## Resolve the newest versions in a new environment, and write constraints.txt
	@rm -rf .venv.new
	@$(PYTHON) -m venv .venv.new
	@.venv.new/bin/python -m pip install -q --disable-pip-version-check -e ".[dev]"
	@{ sed '/^#/!d' constraints.txt; .venv.new/bin/python -m pip freeze --all --exclude pip --exclude-editable; } >constraints.new
	@mv constraints.new constraints.txt
	@rm -rf .venv.new

.PHONY: clean
clean: ## Remove everything that was made here, the virtual environment too
	rm -rf $(VENV) .venv.new .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- set-up -----------------------------------------------------------------------------------------------------------

$(BIN)/pip:
	@if [ -z "$(PYTHON)" ]; then \
		echo "backupd needs Python 3.11 or newer, and none was found. Install it, or name one: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi
	@if ! "$(PYTHON)" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
		package=$$("$(PYTHON)" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
		$(call apt,Python has no venv module,$$package); \
	fi
	@echo "making $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv --clear $(VENV)

$(VENV)/ready-%: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "installing backupd[$*] into $(VENV)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[$*]"
	@touch $@

# promtool judges the alert rules. The package is unpacked and not installed: that would start a Prometheus here.
$(BIN)/promtool: | $(BIN)/pip
	@if command -v promtool >/dev/null; then ln -s "$$(command -v promtool)" $@; exit; fi; \
	if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then \
		echo "the tests need promtool, which judges the alert rules: install Prometheus, then make again" >&2; exit 1; \
	fi; \
	echo "fetching promtool, which judges the alert rules"; \
	folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; cd "$$folder"; \
	fetch() { apt-get -qq -o APT::Sandbox::User= download prometheus; }; \
	fetch 2>/dev/null || { if [ "$$(id -u)" = 0 ]; then $(APT) update -qq; fi; fetch; } || { \
		echo "promtool cannot be fetched. Run this once, then make again: sudo apt-get update" >&2; exit 1; }; \
	dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xO ./usr/bin/promtool >promtool; \
	chmod 755 promtool; mv promtool "$(CURDIR)/$@"

# Server, IMAP and POP3 are packages of their own. /usr/libexec: where other distributions keep them.
.PHONY: dovecot
dovecot:
	@found() { PATH="$$PATH:/usr/sbin:/sbin" command -v dovecot >/dev/null && \
		{ [ -e "/usr/lib/dovecot/$$1" ] || [ -e "/usr/libexec/dovecot/$$1" ]; }; }; \
	if ! found imap || ! found pop3; then \
		$(call apt,the tests need a real mail server,$(DOVECOT)); \
	fi

# Unit files are checked by systemd itself, which need not run for that.
.PHONY: systemd-analyze
systemd-analyze:
	@if ! command -v systemd-analyze >/dev/null; then $(call apt,the tests ask systemd about the units,systemd); fi

.PHONY: machine
machine: $(VENV)/ready-test
	@if [ "$$(id -u)" != 0 ]; then echo "these tests boot a machine of their own, which takes root" >&2; exit 1; fi
	@if ! command -v mmdebstrap >/dev/null || ! command -v systemd-nspawn >/dev/null; then \
		$(call apt,the tests boot a machine of their own,mmdebstrap systemd-container); \
	fi
	@$(BIN)/python -c 'import sys; from tests.support import machine_tree; sys.exit(not machine_tree.made())' || { \
		echo "making the machine's files in .cache/machine"; \
		$(BIN)/python -m tests.support.machine_tree; \
	}
