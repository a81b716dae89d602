# What a person types. Everything a new machine needs is in `setup`, which every other target calls where it needs it.

CARGO ?= cargo
SEEDS ?= 10000
SECONDS ?= 60
MINUTES ?= 30
RUNS ?= 3
PROFILE ?= Balanced
# What the binaries say they were built from. The date is the commit's, so that building it again gives the same.
export ZSHA_BUILD_COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
export ZSHA_BUILD_BRANCH := $(shell git symbolic-ref --quiet --short HEAD 2>/dev/null || echo unknown)
export ZSHA_BUILD_DATE := $(shell TZ=UTC0 git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null || echo unknown)

# Without root there are no network namespaces, so no end-to-end lab.
ROOT := $(shell [ "$$(id -u)" = 0 ] && [ -e /etc/debian_version ] && echo yes)
ifeq ($(ROOT),yes)
  BUILT := --workspace
  TESTS := $(BUILT)
  LABS := $(BUILT) --features zsha-e2e/lab --profile lab
else
  BUILT := --workspace --exclude zsha-e2e --no-default-features --features zsha/ssh
  TESTS := $(BUILT) -E 'not binary(hypervisor_contract) and not binary(host_contract) and not binary(consul_contract) and not binary(consul_policies)'
endif

.DEFAULT_GOAL := help
.PHONY: help setup build zin run test ci e2e lint sim seeds planted busy fuzz bench chaos lab fmt schema

help: ## This list
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

# Without optimisation cargo-nextest is built in two minutes in the place of five, and it only starts the tests.
setup: ## Install what this machine lacks (Debian, root): libvirt, QEMU, Consul, build tools
	@if [ "$(ROOT)" = yes ]; then e2e/setup.sh; else echo "setup: not root on Debian, so nothing is installed and the end-to-end tests are left out"; fi
	@command -v cargo-nextest >/dev/null || CARGO_PROFILE_DEV_DEBUG=0 $(CARGO) install cargo-nextest --locked --no-default-features --features default-no-update --debug

build: setup ## All binaries, for debugging
	$(CARGO) build --workspace --bins

zin: ## What runs in the guest, as one file for any x86-64 image: target/x86_64-unknown-linux-gnu/release/zin
	RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --release -p zin --target x86_64-unknown-linux-gnu

# Nothing is optimised that a person does not wait for, and what `make run` does not use is left out.
UNOPTIMISED := $(foreach crate,zsha-crds zsha-runtime zsha-controller,--config profile.dev.package.$(crate).opt-level=0)

run: ## Three nodes in one process, with a VM: no root, no Consul, no libvirt
	@command -v cc >/dev/null || { echo "make run: there is no C compiler (cc), which Rust links with: on Debian, apt-get install gcc libc6-dev" >&2; exit 1; }
	@$(CARGO) build -p zsha-controller -p zsha --no-default-features $(UNOPTIMISED)
	@manifests/run.sh

# Builds the binaries that the end-to-end tests run too.
test: setup ## Everything but the real lab; of that, as root on Debian, a smoke: first start, QEMU killed, power loss
	ZSHA_E2E_ROUNDS=1 $(CARGO) nextest run $(TESTS)

# The advisories are somebody else's server: where it is not reached, that is said.
lint: setup ## Formatting, clippy, rustdoc: warnings are errors; licences, sources and advisories of what is used (.deny.toml)
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	$(CARGO) clippy -p zsha-controller -p zsha --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet
	@command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked --no-default-features
	$(CARGO) deny check bans licenses sources
	@if timeout 60 $(CARGO) deny fetch db >/dev/null 2>&1; then $(CARGO) deny --offline check advisories; \
	else echo "lint: the database of advisories was not reached, so none was looked for"; fi

# In the lab two at a time, so that what is measured there is told and not judged.
ci: lint ## What CI runs: the README's test command, every test of the real lab once, and the seeds
	$(MAKE) test
	$(if $(ROOT),ZSHA_E2E_ROUNDS=1 $(CARGO) nextest run $(LABS),@echo "not root on Debian: no lab")
	$(MAKE) seeds

e2e: setup ## Every test of the real lab, one lab after another, five rounds of each measured scenario, judged
	ZSHA_E2E_FIGURES=judge $(CARGO) nextest run $(LABS) --test-threads 1 --success-output immediate

# A flake is a fault of the product or of the test, and shows where everything takes longer.
busy: setup ## The tests beside two busy loops a core, again and again: `make busy RUNS=20`; `make busy RUNS=3 LAB=1` for the real lab
	$(CARGO) nextest run $(if $(LAB),$(LABS),$(TESTS)) --no-run
	ZSHA_E2E_ROUNDS=1 e2e/busy.sh $(RUNS) target/busy $(CARGO) nextest run $(if $(LAB),$(LABS),$(TESTS))

sim: ## Simulator: `make sim SEEDS=10000`; `SEED=17` for the log of one; `NODES=31`; `SCENARIO=FILE`; `MATRIX=1` for every call x every fault
	@$(CARGO) run --quiet --release -p zsha-controller --no-default-features --features sim --example sim -- \
	  $(if $(SCENARIO),--scenario $(SCENARIO),$(if $(MATRIX),--matrix $(MATRIX),$(if $(NODES),--nodes $(NODES)) $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))))

# Other seeds with every commit, the same ones for the same commit. Built as the tests are, so that after them only
# the controller is built anew.
seeds: setup ## Simulator: 20,000 seeds that are always the same, and 2,000 that the commit chooses
	$(CARGO) build $(BUILT) --features zsha-controller/sim --example sim
	target/debug/examples/sim --seeds 20000
	target/debug/examples/sim --from $$(printf '%d' 0x$$(git rev-parse --short=10 HEAD)) --seeds 2000

# Built as the tests of the controller alone are.
WITH_BUGS := -p zsha-controller -p zsha-runtime --no-default-features --features zsha-controller/sim
PROGRAM = $(shell $(CARGO) test $(WITH_BUGS) --lib --no-run --message-format=json 2>/dev/null | sed -n 's/.*"name":"$(1)".*"executable":"\([^"]*\)".*/\1/p')

planted: ## Plant every bug of controller/src/planted.rs, and see that each is found by the simulator or by the test named for it
	$(CARGO) test $(WITH_BUGS) --lib --no-run
	$(CARGO) build -p zsha-controller --no-default-features --features sim --example planted
	target/debug/examples/planted $(call PROGRAM,zsha_controller) $(call PROGRAM,zsha_runtime)

fuzz: ## Coverage-guided fuzzing of both decoders, SECONDS=60 each; the compiler's hooks need its unstable switches
	@command -v cargo-fuzz >/dev/null || $(CARGO) install cargo-fuzz --locked
	cd crds/fuzz && for target in document records; do \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --fuzz-dir . --sanitizer none $$target -- -max_total_time=$(SECONDS) -max_len=16384 || exit 1; done

bench: setup ## Measure what grows with the number of nodes, and as root on Debian failover, restart, idle cost; a report, no verdict
	$(CARGO) run --release -p zsha-controller --no-default-features --features sim --example scale
	$(if $(ROOT),$(CARGO) build --release --workspace --bins,@echo "not root on Debian: no lab")
	$(if $(ROOT),ZSHA_BIN_DIR=$(CURDIR)/target/release $(CARGO) run --release -p zsha-e2e --bin bench)

chaos: setup ## Random faults on the real lab: `make chaos MINUTES=30 SEED=7 PROFILE=Fast FAULTS=ByHand`; ends with a table
	$(CARGO) build --workspace --bins
	MINUTES=$(MINUTES) SEED=$(or $(SEED),1) PROFILE=$(PROFILE) FAULTS=$(FAULTS) $(CARGO) run -p zsha-e2e --bin chaos

lab: setup ## Three real hosts in namespaces, with Consul, libvirt and a VM; Ctrl-C leaves nothing behind
	$(CARGO) build --workspace --bins
	$(CARGO) run -p zsha-e2e --bin lab

schema: ## Write manifests/zsha.schema.json anew from the types
	ZSHA_BLESS=1 $(CARGO) nextest run -p zsha-crds schema

fmt: ## Format
	$(CARGO) fmt --all
