# The project's commands. scripts/setup keeps everything it installs in .deps/.
# There is one cargo profile, release, so that libtorch's bindings are compiled once.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

GREET ?= What can you do?
REQUESTS ?= 10000
SECONDS ?= 60
ARGS ?=
PACK ?= target/gpu
# Through the environment, so that quotes in it are only text.
export GREET

.PHONY: help setup build run test lint fuzz bench bench-vision soak chaos gpu-pack gpu-check goldens demo-model sdk clean distclean

help: ## Shows this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

setup: ## Installs libtorch and nats-server under .deps
	@scripts/setup

build: setup ## Builds every binary, in release
	@cargo build --release --workspace --bins

run: build ## Serves the demo model on http://127.0.0.1:8080 until Ctrl-C
	@exec target/release/tokenway up --greet "$$GREET" $(ARGS)

test: build ## Runs every test
	@scripts/setup-test
	@cargo test --release --workspace $(ARGS)

lint: setup ## Formatting, clippy with warnings as errors, cargo-deny where it is installed
	@cargo fmt --all --check
	@cargo clippy --release --workspace --all-targets -- --deny warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check; \
	else echo "cargo-deny is not installed, so dependencies are not checked: cargo install --locked cargo-deny"; fi

FUZZ_LIMITS = -max_total_time=$(SECONDS) -max_len=65536 -print_final_stats=1
fuzz: ## Feeds the readers of model files anything for SECONDS=60 each (needs nightly Rust, cargo install --locked cargo-fuzz)
	@mkdir -p fuzz/corpus/gguf fuzz/corpus/safetensors
	@cargo +nightly fuzz run gguf fuzz/corpus/gguf models/goldens/gguf_converted models/goldens/gguf_files -- $(FUZZ_LIMITS)
	@cargo +nightly fuzz run safetensors fuzz/corpus/safetensors stages/shard-forward/goldens/bitnet-long -- $(FUZZ_LIMITS)

bench: build ## Prints tokens/s of the pipeline over the same work in one process (ARGS=...)
	@target/release/bench $(ARGS)

bench-vision: build ## Prints images/s through vision-encode over ONNX Runtime, with a ViT-B/16 (needs PyTorch: 3 GB down)
	@scripts/python-env
	@.deps/python/bin/python scripts/vision_bench_model.py target/bench-vision
	@target/release/bench --only vision --vision-model target/bench-vision $(ARGS)

soak: build ## Prints the memory growth of each process over REQUESTS=10000 requests
	@target/release/soak --requests $(REQUESTS) $(ARGS)

chaos: build ## Strikes every process with every fault under load, compares each answer with an undisturbed one (ARGS=...)
	@target/release/chaos $(ARGS)

gpu-pack: build ## Packs target/gpu.tar.xz: binaries and golden files for a machine with a GPU and without Rust
	@scripts/gpu-pack

gpu-check: ## Checks and measures on a GPU what gpu-pack packed, unpacked in PACK=target/gpu (needs torch 2.11.0, transformers)
	@python3 scripts/gpu-check $(PACK) $(ARGS)

goldens: ## Makes the reference files of the tests anew, with transformers
	@scripts/python-env
	@.deps/python/bin/python stages/shard-forward/goldens/make.py
	@.deps/python/bin/python stages/shard-forward/goldens/make_images.py
	@.deps/python/bin/python models/goldens/templates.py
	@.deps/python/bin/python models/demo/goldens.py
	@.deps/python/bin/python tests/goldens/vision/make.py

demo-model: ## Trains the demo model (an hour and a half on two cores)
	@scripts/python-env
	@.deps/python/bin/python models/demo/train.py

sdk: build ## Writes sdk/openapi.json and the generated code of the SDKs anew
	@sdk/generate
	@sdk/rust/generate

clean: ## Deletes what cargo built
	@cargo clean

distclean: clean ## Deletes .deps too
	@rm -rf .deps
