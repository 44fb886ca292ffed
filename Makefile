# Every command that people and CI run. `make` lists the targets.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

TARGET  := x86_64-unknown-linux-gnu
# The chart's default image, so that the tests install the chart without a value for it.
IMAGE   ?= ghcr.io/obolnetwork/serviceoffer-controller:0.1.0
BINARY  := target/$(TARGET)/release/serviceoffer-controller
TESTBED := target/debug/testbed
# Tools that `make deps` installs into its cache take precedence over those of the machine.
TOOLS    = PATH="$$($(TESTBED) deps --print-path):$$PATH"
# Cargo unites the features of the packages that it selects. With all of them selected, every program uses the same dependencies.
PROGRAM := cargo build --quiet --locked --workspace --bin

.PHONY: help
help: ## List all targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: $(TESTBED) ## Install what the tests and the demo need: Debian packages, tools, Kubernetes binaries
	$(TESTBED) deps

.PHONY: $(TESTBED)
$(TESTBED):
	$(PROGRAM) testbed

.PHONY: build
build: ## Build the static binary
	RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$$HOME/.cargo=/cargo --remap-path-prefix=$$PWD=/src" \
	  cargo build --release --locked --target $(TARGET) --package serviceoffer-controller --bin serviceoffer-controller

.PHONY: image
image: deps build ## Build the release image as a docker-archive, target/image.tar
	@mkdir -p target/image/out
	install -m 755 $(BINARY) target/image/out/serviceoffer-controller
	install -m 644 /etc/ssl/certs/ca-certificates.crt target/image/out/ca-certificates.crt
	ln -sf "$$($(TESTBED) build --tag $(IMAGE) --stage build=target/image .)" target/image.tar

.PHONY: crds
crds: ## Generate the chart's CRDs from the Rust types
	$(PROGRAM) crdgen
	target/debug/crdgen

.PHONY: crds-check
crds-check: ## Fail if the chart's CRDs differ from the Rust types
	$(PROGRAM) crdgen
	target/debug/crdgen --check

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: lint
lint: deps crds-check ## Check format, lints, docs, licenses, unused dependencies and the chart
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --document-private-items --locked --quiet
	$(TOOLS) cargo-deny --log-level error check bans licenses sources
	$(TOOLS) cargo-shear
	$(TOOLS) helm lint --strict --quiet charts/serviceoffer-controller

.PHONY: test
test: deps lint image ## Run all checks and all tests, on a real cluster
	.ci/suites

.PHONY: test-unit
test-unit: ## Run the tests that need no cluster
	cargo test --quiet --locked --workspace --exclude contracts --exclude model --exclude testbed --lib --bins --test architecture --test faults --test language

.PHONY: model
model: model-election model-ledger model-payment ## Model-check the cores of election, ledger and payments within bounds, and refute their broken variants

.PHONY: model-election
model-election: ## Model-check the election core
	$(PROGRAM) model
	target/debug/model

.PHONY: model-ledger
model-ledger: ## Model-check the ledger core; CONFIGURATION=name runs one
	$(PROGRAM) model-ledger
	target/debug/model-ledger $(CONFIGURATION)

.PHONY: model-payment
model-payment: ## Model-check the life of a payment; CONFIGURATION=name runs one
	$(PROGRAM) model-payment
	target/debug/model-payment $(CONFIGURATION)

.PHONY: test-flows
test-flows: image ## Run the flows on a running testbed (make testbed-up); FLOW=name runs one
	$(TESTBED) load target/image.tar
	$(TOOLS) cargo-nextest nextest run --package serviceoffer-controller --test flows $(FLOW)

# The commit of the previous version, or a checkout of it whose image is built.
BASE     ?= HEAD~1
PREVIOUS ?=
.PHONY: test-skew
test-skew: image ## Upgrade from the version of commit BASE (default HEAD~1), roll back and upgrade again; PREVIOUS=dir uses a built checkout
	BASE=$(BASE) PREVIOUS=$(PREVIOUS) .ci/skew

.PHONY: test-clients
test-clients: image ## Buy through the gate with clients of others, in JavaScript, Python and Rust; installs them below target/clients
	.ci/clients

.PHONY: test-gateway
test-gateway: image ## Buy through Traefik, which an Ingress or an HTTPRoute of the chart leads to the gate; builds Traefik
	target/debug/testbed deps --traefik
	$(TESTBED) run -- .ci/ignored-flows sale::gateway

.PHONY: test-browser
test-browser: image ## Look at the page of the gate with Chromium; installs it, and keeps target/browser/page.png
	target/debug/testbed deps --chromium
	$(TESTBED) run -- .ci/ignored-flows sale::browser

STOPS ?= 200
.PHONY: campaign
campaign: image ## Inject faults into a group of operators, STOPS=n leader freezes among them, and check for overlaps
	STOPS=$(STOPS) .ci/campaign

.PHONY: test-election
test-election: build ## Run the elector beside client-go on a running testbed (make testbed-up); TEST=name runs one test
	$(TOOLS) cargo-nextest nextest run --locked --package election $(TEST)

.PHONY: bench-election
bench-election: deps build ## Benchmark the elector against client-go and controller-runtime; SAMPLES=n sets the sample count
	$(PROGRAM) bench-election
	$(TESTBED) run -- target/debug/bench-election

.PHONY: bench-scale
bench-scale: deps build ## Benchmark many offers beside a controller-runtime reconciler; OFFERS=n REGISTRATIONS=n set the size
	$(PROGRAM) bench-scale
	$(TESTBED) run -- target/debug/bench-scale

.PHONY: bench-chain
bench-chain: deps build ## Benchmark registrations beside an alloy program that only sends; REGISTRATIONS=n BLOCK_SECONDS=n
	$(PROGRAM) bench-chain
	$(TESTBED) run -- target/debug/bench-chain

.PHONY: coverage
coverage: deps ## Check that the region coverage of the pure modules is complete
	.ci/coverage

FUZZ_SECONDS ?= 600
.PHONY: fuzz
fuzz: ## Damage payments, paths and answers of facilitators at random; FUZZ_SECONDS=n sets the time, FUZZ_SEED=n repeats a run
	FUZZ_SECONDS=$(FUZZ_SECONDS) cargo test --quiet --locked --package serviceoffer-controller --lib gate::tests -- --nocapture

.PHONY: mutants
mutants: ## Change the pure modules in every way that cargo-mutants knows, and check that the unit tests notice; MUTANTS="--file src/x.rs" selects
	.ci/mutants $(MUTANTS)

.PHONY: testbed-up
testbed-up: deps ## Start a one-node cluster for this checkout
	$(TESTBED) up

.PHONY: testbed-down
testbed-down: $(TESTBED) ## Remove the testbed and everything that it left
	$(TESTBED) down

.PHONY: testbed-shell
testbed-shell: $(TESTBED) ## Open a shell in the testbed's network, with kubectl and helm
	$(TESTBED) exec -- $${SHELL:-bash}

.PHONY: demo
demo: image ## Demonstrate registration on a real node: 24 offers, 3 replicas, a leader that is killed
	$(PROGRAM) demo
	target/debug/demo

.PHONY: demo-down
demo-down: testbed-down ## Remove the demo's cluster
