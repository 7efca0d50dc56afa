# `make help` lists the targets. They need root: they make namespaces, mounts and containers.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
# NODES=3 make up: how many servers the cluster has.
NODES ?= 1
export NODES

TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
DEV := $(TARGET)/debug/dev

# SOAK_SECONDS=3600 SOAK_SEED=7 make soak: how long, and the seed of its decisions (printed by every soak).
SOAK_SECONDS ?= 600
SOAK_SEED ?=

# FUZZ_SECONDS=600 make fuzz: how long each decoder.
FUZZ_SECONDS ?= 60

.PHONY: help demo test test-cgroup2 soak fuzz up down bench bench-events bench-proxy bench-scale release lint fmt setup build root

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

root:
	@if [ "$$(id -u)" != 0 ]; then
		echo "make: this needs root, because it makes namespaces, mounts and containers: run it as root (sudo make …)" >&2
		exit 1
	fi

setup: root
	@scripts/setup.sh

build: setup
	@echo "build: the first time takes some minutes"
	cargo build --workspace --bins

demo: build ## one-machine cluster, the main job against it step by step, and everything gone again
	@$(DEV) demo

up: build ## cluster in the background (NODES=3 for three servers); writes .dev/env
	@$(DEV) up

down: build ## end the cluster and remove everything of it
	@$(DEV) down

test: build ## every test: unit, both databases, kernel, black-box
	@scripts/check-systemd.sh
	trap 'scripts/postgres.sh stop' EXIT
	HOODY_TEST_POSTGRES=$$(scripts/postgres.sh start)
	export HOODY_TEST_POSTGRES
	# Images for the black-box tests; made once.
	scripts/images.sh busybox
	scripts/images.sh debian/12
	# Most of the time a test waits, for a connection, a deadline or the disk: more of them at once than processors.
	export RUST_TEST_THREADS=$${RUST_TEST_THREADS:-4}
	cargo test --workspace

soak: build ## random operations, kills and partitions on three servers, 10 minutes (SOAK_SECONDS, SOAK_SEED)
	scripts/images.sh busybox
	export SOAK_SECONDS=$(SOAK_SECONDS) SOAK_SEED=$(SOAK_SEED)
	cargo test -p hoody-tests --test soak -- --nocapture
	EGRESS_SECONDS=300 cargo test -p hoody-tests --test egress nothing_leaves -- --nocapture
	HOODY_TEST_PARTITION_SECONDS=30 cargo test -p hoody-tests --test link partition
	# The packet filter against its model, ten times as long as in make test.
	HOODY_MODEL_POLICIES=3000 cargo test -p hoody-agent --test firewall model -- --nocapture

fuzz: setup ## libFuzzer on every decoder of bytes from outside, a minute each (FUZZ_SECONDS)
	@HOODY_FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/fuzz.sh

test-cgroup2: root ## runtime, commands, an installed server with its reboot on cgroup v2, in a virtual machine (emulated)
	@scripts/setup.sh cgroup2
	@scripts/cgroup2.sh

release: root ## release binaries of everything; checks that no fault point is in them
	@scripts/setup.sh bench
	cargo build --release --workspace --bins --features hoody-tests/bench
	@scripts/check-release.sh $(TARGET)/release

bench: release ## times, traffic and memory beside peers measured in the same run, from a release build
	@trap 'scripts/postgres.sh stop' EXIT
	HOODY_TEST_POSTGRES=$$(scripts/postgres.sh start)
	export HOODY_TEST_POSTGRES
	$(TARGET)/release/dev bench

bench-scale: release ## 10,000 simulated agents on one control plane (AGENTS=1000 for fewer)
	@$(TARGET)/release/dev bench-scale

bench-proxy: root ## throughput and connections through the proxy, without it, and through redsocks
	@scripts/setup.sh bench
	cargo bench -p hoody-proxy --bench relay

bench-events: release ## memory of 5,000 idle event listeners, time from event to delivery, from a release build
	ulimit -n 20000
	@$(TARGET)/release/dev bench-events

lint: root ## format, clippy, licences and sources of dependencies, shell scripts
	@scripts/setup.sh lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo deny --log-level error check bans licenses sources
	shellcheck scripts/*.sh systemd/*.sh

fmt: ## format the code
	cargo fmt --all

