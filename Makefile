# Needs Rust, make and git; `make setup` sees to the rest. CARGO_TARGET_DIR, ROCKSDB_LIB_DIR and CI are honoured.

.DEFAULT_GOAL := help
.PHONY: help setup env test demo soak bench deny

help: ## Show this list
	@echo 'make TARGET, where TARGET is one of'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' Makefile

setup: ## Install what is missing and build RocksDB once (a moment when all is there)
	@scripts/setup.sh

env: setup ## Print the settings for running cargo yourself: eval "$(make -s env)"
	@. scripts/env.sh && if [ -n "$$ROCKSDB_LIB_DIR" ]; then echo "export ROCKSDB_LIB_DIR='$$ROCKSDB_LIB_DIR' ROCKSDB_STATIC=1"; fi

test: setup ## Check format and lints, build, and run every test, those on real servers included
	@scripts/test.sh

demo: setup ## Start real servers and the services, and watch an attack being voted on and mailed
	@scripts/demo.sh

soak: setup ## Break a cluster on purpose and check every record (SOAK_ARGS="--minutes 10 --seed 7")
	@scripts/soak.sh $(SOAK_ARGS)

bench: setup ## Measure beside Kafka Streams, most of an hour (BENCH_ARGS="--only drain --rounds 3" for a part)
	@scripts/bench.sh $(BENCH_ARGS)

deny: ## Check licences, advisories and sources of all dependencies (needs cargo-deny)
	@command -v cargo-deny >/dev/null || { echo 'cargo-deny is missing: cargo install cargo-deny --locked (some minutes)' >&2; exit 1; }
	@cargo deny --all-features check
