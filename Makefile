# The short names of what is done with this repository. `make test` and `.ci/run` need nothing prepared.

FUZZ_SECS ?= 60
SEEDS ?= 100000
THRONG_CHAOS_SECS ?= 3600
PEER_RUNS ?= 3

.PHONY: build test test-tools hello-cluster simulate chaos lint conformance fuzz bench bench-cluster bench-peers million clean-tools

build:
	cargo build --release

# The dev profile, on purpose: debug assertions and overflow checks are on only there. The faults that tests
# switch on are built in, and off.
test: test-tools
	cargo test --workspace --features throng/faults

# Clients in Python and Node, cargo-deny: installed under target/tools or where they are missing.
test-tools:
	scripts/test-tools.sh

# Three nodes and a redis-server on this machine, until Ctrl-C.
hello-cluster: build
	scripts/hello-cluster.sh

# As many simulated worlds as SEEDS says, and a quarter as many clusters. One that goes wrong is named by its seed, with the
# command that replays it.
simulate:
	THRONG_SIM_SEEDS=$(SEEDS) cargo test --features faults --test simulation -- thousands_of_ --nocapture

# A cluster in which nodes and Redis die, stand still and come back in any order, for THRONG_CHAOS_SECS
# seconds, after a node that stands still until its lease has lapsed.
chaos: test-tools
	THRONG_CHAOS_SECS=$(THRONG_CHAOS_SECS) cargo test --features faults --test cluster -- --ignored --nocapture --test-threads 1

# fuzz/ (which needs a nightly compiler to run) and bench/peers/axum stand outside of the workspace, so they are checked by name.
lint: test-tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features throng/faults -- -D warnings
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --manifest-path fuzz/Cargo.toml --target-dir target -- -D warnings
	cargo fmt --manifest-path bench/peers/axum/Cargo.toml --check
	cargo clippy --manifest-path bench/peers/axum/Cargo.toml --target-dir target -- -D warnings
	cargo deny check licenses bans sources

# The release binary: the suite moves 16 MiB messages through it.
conformance: build
	scripts/conformance.sh

# Every target for FUZZ_SECS seconds, with inputs long enough for a session to get somewhere. A crash stops it and leaves its input in fuzz/artifacts.
fuzz:
	@targets=$$(cargo +nightly fuzz list) || { echo "make fuzz needs a nightly toolchain and cargo-fuzz" >&2; exit 1; }; \
	for target in $$targets; do \
		mkdir -p "fuzz/target/corpus/$$target" "fuzz/corpus/$$target"; \
		cargo +nightly fuzz run "$$target" "fuzz/target/corpus/$$target" "fuzz/corpus/$$target" -- \
			-max_total_time=$(FUZZ_SECS) -len_control=0 -max_len=1024 -print_final_stats=1 || exit 1; \
	done

bench:
	cargo run --release -p throng-bench

# Nodes over a Redis, beside Socket.IO and Nchan, which are got under target/peers.
bench-cluster:
	scripts/peers.sh socketio nchan
	cargo run --release -p throng-bench -- cluster --json target/bench-cluster.json

# Other people's servers beside the floor and Throng; whatever scripts/peers.sh could not get is named in the table.
bench-peers:
	-scripts/peers.sh
	cargo run --release -p throng-bench -- peers --runs $(PEER_RUNS) --out bench/results

# One process and a million connections, then as far toward two million as memory allows: a quarter of an hour.
# MILLION has other options: make million MILLION="--connections 100000 --toward 0 --idle-secs 60".
million: build
	cargo build --release -p throng-bench
	scripts/million.sh $(MILLION)

clean-tools:
	rm -rf target/tools target/conformance target/peers
