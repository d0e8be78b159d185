# Each target documents itself: `make help`. Nothing here needs root; system packages are the
# business of .ci/run.

RUST_VERSION := 1.95.0
CARGO := rustup run $(RUST_VERSION) cargo
BIN := .venv/bin
BUILD_PYTHON = $(if $(wildcard $(BIN)/python),$(BIN)/python,$(or $(PYTHON),python3))
# Where contract_build keeps its tools: tested and linted from what was compiled there already.
TOOLS_TARGET := $(CURDIR)/target/contract/canonical-tools
# The lints that cargo-contract makes hard errors: the release profile has no overflow checks.
DENIALS := -Dclippy::arithmetic_side_effects -Dclippy::cast_possible_truncation \
	-Dclippy::cast_possible_wrap -Dclippy::cast_sign_loss

export PYTHON

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/installed-run ## watch one confidential job go through, from sealing to the opened result
	@$(BIN)/phala-jobs demo

.PHONY: test
test: test-rust test-python ## all tests: the contract's, the build tool's, the Python package's with branch coverage

.PHONY: test-rust
test-rust: target/rust-is-there ## the tests written in Rust
	$(CARGO) test --workspace --locked --quiet
	CARGO_TARGET_DIR=$(TOOLS_TARGET) $(CARGO) test --locked --quiet \
		--manifest-path contract_build/Cargo.toml --package contract-postprocess

# Most of the time goes by in processes that wait for each other, so two lanes run side by side.
.PHONY: test-python
test-python: .venv/installed-dev ## the tests written in Python, in two lanes, with the coverage gate
	@rm -f .coverage .coverage.*
	@echo "two lanes of tests; each is shown when it has ended, which takes some minutes"
	@$(MAKE) --no-print-directory --output-sync=target --jobs=2 test-lane-systems test-lane-units
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

LANE = COVERAGE_FILE=.coverage.$@ $(BIN)/python -m pytest --cov --cov-report= --cov-fail-under=0

.PHONY: test-lane-units
test-lane-units: .venv/installed-dev ## one lane: modules by themselves, and the documents
	$(LANE) tests/unit tests/docs

.PHONY: test-lane-systems
test-lane-systems: .venv/installed-dev ## the other lane: whole systems, ports, properties, other clients
	$(LANE) tests/acceptance tests/interop tests/ports tests/properties

.PHONY: lint
lint: lint-python lint-rust ## every formatter and checker, changing nothing

.PHONY: lint-python
lint-python: .venv/installed-dev ## ruff, mypy and the import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: lint-rust
lint-rust: target/rust-is-there ## rustfmt, and clippy with the four denials of cargo-contract
	$(CARGO) fmt --all --check
	$(CARGO) fmt --all --check --manifest-path contract_build/Cargo.toml
	$(CARGO) fmt --all --check --manifest-path devnode/Cargo.toml
	$(CARGO) clippy --workspace --all-features --locked -- -Dwarnings $(DENIALS)
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -Dwarnings
	CARGO_TARGET_DIR=$(TOOLS_TARGET) $(CARGO) clippy --locked --all-targets \
		--manifest-path contract_build/Cargo.toml --package contract-postprocess -- -Dwarnings

.PHONY: fmt
fmt: .venv/installed-dev target/rust-is-there ## format all code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(CARGO) fmt --all
	$(CARGO) fmt --all --manifest-path contract_build/Cargo.toml
	$(CARGO) fmt --all --manifest-path devnode/Cargo.toml

.PHONY: contract
contract: ## build the contract and write its bundle; prints size and code hash
	@$(BUILD_PYTHON) -m contract_build

.PHONY: contract-check
contract-check: ## rebuild the contract; fail unless the committed bundle is what the sources build
	@$(BUILD_PYTHON) -m contract_build --check

.PHONY: node
node: target/rust-is-there ## build a development node with pallet-contracts; says where it is
	@RUST_VERSION=$(RUST_VERSION) devnode/build

.PHONY: vectors
vectors: .venv/installed-dev ## make the test vectors anew; fail when they differ from the committed ones
	@for generator in tests/vectors/generate*.py; do \
		echo "$$generator"; $(BIN)/python "$$generator" || exit 1; done
	@git diff --exit-code -- tests/vectors && test -z "$$(git status --porcelain -- tests/vectors)" || \
		{ echo "the vectors changed: see git status tests/vectors" >&2; exit 1; }

.PHONY: interop
interop: .venv/installed-dev interop-packages ## other people's clients against the contract
	$(BIN)/python -m pytest tests/interop

.PHONY: interop-packages
interop-packages: tests/interop/node_modules/.package-lock.json ## install the npm packages of tests/interop
tests/interop/node_modules/.package-lock.json: tests/interop/package-lock.json tests/interop/.npmrc
	cd tests/interop && npm ci --loglevel=error
	@touch $@

.PHONY: docs
docs: .venv/installed-dev ## check the documents: links, commands, options, imports, help texts
	@$(BIN)/python -m pytest tests/docs --quiet

.PHONY: bench
bench: .venv/installed-dev ## measure; figures as ratios where a machine would matter
	@$(BIN)/python -m benchmarks

.PHONY: bench-chain
bench-chain: .venv/installed-dev ## measure what each message costs on a node, into docs/costs.md; fails when an aim is missed
	@$(BIN)/python -m benchmarks.chain_costs --write docs/costs.md

.PHONY: lock
lock: ## resolve the pinned requirements anew (needs uv on the path)
	@$(UV_COMPILE) --group dev --output-file requirements/dev.txt
	@$(UV_COMPILE) --constraint requirements/dev.txt --output-file requirements/run.txt
	@$(UV) examples/tumor_classifier/requirements.in --output-file examples/tumor_classifier/requirements.txt

# One file for all supported Pythons and platforms, without the address of any index.
UV := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
UV_COMPILE := $(UV) pyproject.toml requirements/build.in --all-extras

.PHONY: clean
clean: ## remove what was built, .venv included
	rm -rf .venv target dist contract_build/node_modules contract_build/target devnode/target
	rm -rf tests/interop/node_modules
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage

.venv/installed-%: requirements/%.txt pyproject.toml requirements/install
	@requirements/install $*

target/rust-is-there: rust-toolchain.toml
	@command -v rustup >/dev/null || { printf '\nset-up: %s\n        %s\n' \
		"rustup is not installed; the contract's tests and checks need Rust $(RUST_VERSION)." \
		"See https://rustup.rs (it needs no root). The Python tests alone: make test-python" >&2; exit 1; }
	@rustup run $(RUST_VERSION) rustc --version >/dev/null 2>&1 && \
		rustup run $(RUST_VERSION) cargo clippy --version >/dev/null 2>&1 && \
		rustup run $(RUST_VERSION) cargo fmt --version >/dev/null 2>&1 || \
		rustup toolchain install $(RUST_VERSION) --profile minimal -c rustfmt -c clippy --no-self-update
	@command -v cc >/dev/null || { printf '\nset-up: %s\n' \
		"a C compiler and linker (cc) are missing; Debian and Ubuntu: apt-get install gcc libc6-dev" >&2; exit 1; }
	@mkdir -p target && touch $@
