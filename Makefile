# Costgate. `make help` lists the targets.
SHELL := /bin/sh
GO ?= go
NPM ?= npm
export CGO_ENABLED ?= 0
LINT := $(GO) tool -modfile=tools/go.mod

.PHONY: help
help: ## Print this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the gateway for this machine
	$(GO) build -trimpath -o gateway ./handler

.PHONY: run
run: build ## Run the gateway with a demo product, no cloud account needed
	@exec ./gateway demo $(ARGS)

.PHONY: test
test: deps package test-unit test-race test-e2e ## Run all tests; installs what they need

.PHONY: test-unit
test-unit: ## Go tests
	$(GO) vet ./...
	$(GO) test -count=1 -timeout 20m ./...

# The race detector needs cgo; a machine without a C compiler has no race run.
.PHONY: test-race
test-race: ## Go tests under the race detector
	@if command -v "$${CC:-cc}" >/dev/null 2>&1; then \
		echo "$(GO) test -race -short ./handler/..."; CGO_ENABLED=1 $(GO) test -race -short -count=1 -timeout 20m ./handler/...; \
	else echo "no C compiler: the race detector was not run"; fi

.PHONY: test-e2e
test-e2e: build ## Real OpenAI SDKs, Azurite, processes killed
	cd e2e && node --test --test-concurrency=1

.PHONY: deps
deps: e2e/node_modules/.installed ## Install Azurite and the OpenAI SDK for tests

e2e/node_modules/.installed: e2e/package-lock.json
	cd e2e && $(NPM) ci --no-audit --no-fund --ignore-scripts --loglevel=error
	@touch $@

.PHONY: package
package: ## Assemble dist/, what the Functions host runs (linux/amd64)
	rm -rf dist && mkdir dist
	cp host.json dist/
	for f in functions/*/; do n=$$(basename $$f); mkdir dist/$$n && cp $$f/function.json dist/$$n/; done
	CGO_ENABLED=0 GOOS=linux GOARCH=amd64 $(GO) build -trimpath -ldflags "-s -w" -o dist/gateway ./handler

.PHONY: bench
bench: build ## Measure against a bare reverse proxy; writes docs/benchmarks.md
	$(GO) run ./e2e/bench -gateway ./gateway -out docs/benchmarks.md $(ARGS)

.PHONY: lint
lint: ## Static checks with the pinned linters
	$(LINT) golangci-lint run ./...

.PHONY: fmt
fmt: ## Format the Go code
	gofmt -w handler e2e

.PHONY: fuzz
fuzz: ## Fuzz every parser for FUZZTIME each (default 20s)
	@for pkg in $$($(GO) list ./handler/...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $${FUZZTIME:-20s} $$pkg || exit 1; \
		done; \
	done

.PHONY: clean
clean: ## Remove what was built
	rm -rf gateway dist e2e/node_modules
