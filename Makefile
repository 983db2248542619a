# `make` alone lists what there is. Programs that a target needs and this machine lacks are installed by
# scripts/setup.sh, which says so first; nothing is installed when nothing is missing.

TOOLS_DIR ?= $(CURDIR)/.tools
NATS_NEWEST := 2.15.1
BENCH ?= cargo bench --locked --bench system --
MICRO ?= cargo bench --locked --bench micro
ARGS ?=

export TOOLS_DIR
# So that `convoke demo`, which starts a private nats-server, finds one.
export PATH := $(TOOLS_DIR)/nats-server/$(NATS_NEWEST):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo test docs bench bench-scale bench-page fill soak fuzz packages packages-test lint fmt clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-13s %s\n", $$1, $$2 }'

# Not optimised, since building takes nearly all of the time; what is built here serves `make test` too.
demo: ## build Convoke and show it at work (ARGS="--once" ends after one run)
	@scripts/setup.sh demo
	@echo "demo: building Convoke; the first time this takes some minutes" >&2
	cargo build --locked
	target/debug/convoke demo $(ARGS)

# The doc tests come first: the last lines are to be the summary of the run that counts.
test: ## run every test, on real databases and a real bus (ARGS="a_name" selects)
	@scripts/setup.sh test
	cargo test --locked --doc --quiet
	cargo nextest run --locked --no-tests=fail $(ARGS)

docs: ## make a site of the documentation, in target/book
	@scripts/setup.sh docs
	@scripts/book.py target/book

bench: ## measure the whole service beside a baseline (ARGS=--quick, or --help for more)
	@scripts/setup.sh bench
	$(BENCH) $(ARGS)
	$(MICRO)

bench-scale: ## measure with 20 million rows, two replicas, TLS, a backlog, and over time (ARGS="--only tls", or --help)
	@scripts/setup.sh bench
	$(BENCH) scale $(ARGS)

bench-page: ## measure the page in a browser while events come in, and ingest with fifty of them open (ARGS="--length 60")
	@scripts/setup.sh bench-page
	$(BENCH) page $(ARGS)

fill: ## fill a new log with the past (make fill ROWS=20000000 URL=sqlite:///tmp/large.db)
	@[ -n "$(ROWS)" ] && [ -n "$(URL)" ] || { echo "make fill needs ROWS=… and URL=sqlite://… or postgres://…" >&2; exit 2; }
	$(BENCH) fill --rows $(ROWS) --url '$(URL)' $(ARGS)

soak: ## kill, stop and cut off everything at random under load, then audit (SECONDS=600 SEED=1)
	@scripts/setup.sh bench
	cargo bench --locked --bench soak -- --seconds $(or $(SECONDS),240) $(if $(SEED),--seed $(SEED)) $(ARGS)

# Without a sanitizer: there is no unsafe code of ours for one to watch.
fuzz: ## look for bytes that break a promise (TARGET=verify, settings or cloudevent; SECONDS=300); needs cargo-fuzz
	cargo +nightly fuzz run --sanitizer none $(or $(TARGET),verify) -- -max_total_time=$(or $(SECONDS),300) $(ARGS)

packages: ## make a .deb, an .rpm, a tarball and an image in target/packages/dist (ARCH=aarch64; ARGS="deb rpm" selects)
	@scripts/setup.sh packages
	scripts/packages.sh $(if $(ARCH),--arch $(ARCH)) $(ARGS)

packages-test: ## install the packages in a booted Debian, run the images, try the proxies' samples; as root (ARGS="deb image" selects)
	tests/packages/run.sh $(ARGS)

lint: ## formatting, clippy, docs, licences; every warning is an error
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --quiet
	@if command -v cargo-deny >/dev/null; then cargo deny --locked check licenses bans sources; \
	else echo "lint: cargo-deny is not installed, so licences, bans and sources were not checked"; fi

fmt: ## format the code
	cargo fmt --all

clean: ## remove what was built; .tools stays
	cargo clean
