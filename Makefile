# Everything that a person or a pipeline runs. `make` lists it.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

TARGET  := x86_64-unknown-linux-gnu
# The image that the chart names, so that what is tested is installed without a value.
IMAGE   ?= ghcr.io/obolnetwork/serviceoffer-controller:0.1.0
BINARY  := target/$(TARGET)/release/serviceoffer-controller
TESTBED := target/debug/testbed
# The tools that `make deps` puts into its cache, in front of those of the machine.
TOOLS    = PATH="$$($(TESTBED) deps --print-path):$$PATH"

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: $(TESTBED) ## Install what tests and demo need: Debian packages, tools, the cluster's programs
	$(TESTBED) deps

.PHONY: $(TESTBED)
$(TESTBED):
	cargo build --quiet --locked --package testbed

.PHONY: build
build: ## Build the static binary
	RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$$HOME/.cargo=/cargo --remap-path-prefix=$$PWD=/src" \
	  cargo build --release --locked --target $(TARGET) --package serviceoffer-controller --bin serviceoffer-controller

.PHONY: image
image: deps build ## Pack the image that users get, as a docker-archive in target/image.tar
	@mkdir -p target/image/out
	install -m 755 $(BINARY) target/image/out/serviceoffer-controller
	install -m 644 /etc/ssl/certs/ca-certificates.crt target/image/out/ca-certificates.crt
	ln -sf "$$($(TESTBED) build --tag $(IMAGE) --stage build=target/image .)" target/image.tar

.PHONY: crds
crds: ## Write the CRDs that the Rust types derive into the chart
	cargo run --quiet --locked --package crdgen

.PHONY: crds-check
crds-check: ## Fail if the chart's CRDs are not those that the Rust types derive
	cargo run --quiet --locked --package crdgen -- --check

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: lint
lint: deps crds-check ## Check format, lints, docs, licences, unused dependencies and the chart
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --document-private-items --locked --quiet
	$(TOOLS) cargo-deny --log-level error check bans licenses sources
	$(TOOLS) cargo-shear
	$(TOOLS) helm lint --strict --quiet charts/serviceoffer-controller

.PHONY: test
test: deps lint image ## Run every check and every test, on a real cluster
	.ci/suites

.PHONY: test-unit
test-unit: ## Run the tests that need no cluster
	cargo test --quiet --locked --package serviceoffer-controller --package crdgen --package demo --package election --package harness --lib --bins --test architecture

.PHONY: model
model: ## Check the election core against every schedule within bounds, and refute its broken variants
	cargo run --quiet --locked --package model

.PHONY: test-flows
test-flows: image ## Run the flows on the testbed that is up (make testbed-up), FLOW=name for one
	$(TESTBED) load target/image.tar
	$(TOOLS) cargo-nextest nextest run --package serviceoffer-controller --test flows $(FLOW)

STOPS ?= 200
.PHONY: campaign
campaign: image ## Inject faults into a group of controllers, STOPS=n freezes of the leader among them, and judge what it did
	STOPS=$(STOPS) .ci/campaign

.PHONY: test-election
test-election: build ## Run the elector among others on the testbed that is up (make testbed-up), TEST=name for one
	$(TOOLS) cargo-nextest nextest run --locked --package election $(TEST)

.PHONY: bench-election
bench-election: deps build ## Measure the elector side by side with client-go and controller-runtime, SAMPLES=number for a short run
	cargo build --quiet --locked --package election --bin bench-election
	$(TESTBED) run -- target/debug/bench-election

.PHONY: coverage
coverage: deps ## Region coverage of the two decision cores, which must be complete
	.ci/coverage

.PHONY: testbed-up
testbed-up: deps ## Start a one-node cluster of this checkout's own
	$(TESTBED) up

.PHONY: testbed-down
testbed-down: $(TESTBED) ## Remove it and everything it left
	$(TESTBED) down

.PHONY: testbed-shell
testbed-shell: $(TESTBED) ## Open a shell in its network, with kubectl and helm
	$(TESTBED) exec -- $${SHELL:-bash}

.PHONY: demo
demo: image ## Show the main job on a real node: 24 offers, 3 replicas, a leader that dies
	cargo run --quiet --locked --package demo

.PHONY: demo-down
demo-down: testbed-down ## Remove the demo's cluster
