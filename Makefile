# Costgate. `make help` lists the targets.
SHELL := /bin/sh
GO ?= go
NPM ?= npm
export CGO_ENABLED ?= 0
LINT := $(GO) tool -modfile=tools/go.mod

.PHONY: help
help: ## Print this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the gateway for this machine
	$(GO) build -trimpath -o gateway ./handler

.PHONY: run
run: build ## Run the gateway with a demo product, no cloud account needed
	@exec ./gateway demo $(ARGS)

.PHONY: test
test: deps package test-unit test-race test-sim test-e2e test-crash ## Run all tests; installs what they need

.PHONY: test-unit
test-unit: ## Go tests
	$(GO) vet ./...
	$(GO) test -count=1 -timeout 20m ./...

# The race detector needs cgo; a machine without a C compiler has no race run.
# The simulator is left out: it runs one task at a time.
.PHONY: test-race
test-race: ## Go tests under the race detector
	@if command -v "$${CC:-cc}" >/dev/null 2>&1; then \
		echo "$(GO) test -race -short ./handler/..."; \
		CGO_ENABLED=1 $(GO) test -race -short -count=1 -timeout 20m $$($(GO) list ./handler/... | grep -v /ledger/sim); \
	else echo "no C compiler: the race detector was not run"; fi

.PHONY: test-e2e
test-e2e: build ## Real OpenAI SDKs, Azurite, processes killed
	cd e2e && node --test --test-concurrency=1

.PHONY: test-sim
test-sim: ## The ledger in 2,000 simulated schedules
	$(GO) test ./handler/internal/ledger/sim -count=1 -timeout 20m -run TestSchedules -seeds 2000

.PHONY: test-crash
test-crash: build deps ## Real processes killed and cut off from their table, for a short while
	$(GO) run ./e2e/crash -gateway ./gateway -scenario kill,endgame,linear,hub -minutes 0.7 -faults -requests 1500

SEEDS ?= 20000
FROM ?= 1
.PHONY: sim
sim: ## Simulate the ledger: SEEDS= schedules from the seed FROM=; one with TRACE=1; MUTANT= breaks a rule; FOCUS= makes more of some faults
	$(GO) test ./handler/internal/ledger/sim -count=1 -timeout 12h -v -run TestSchedules \
		-seeds $(SEEDS) -from $(FROM) $(if $(TRACE),-show) -mutant '$(MUTANT)' -focus $(or $(FOCUS),0)

.PHONY: mutants
mutants: ## Break each rule of the ledger in turn: the simulator must notice
	$(GO) test ./handler/internal/ledger/sim -count=1 -timeout 12h -v -run TestMutants -mutants

MINUTES ?= 10
SCENARIO ?= kill
.PHONY: crash
crash: build deps ## Kill and freeze real processes for MINUTES=; FAULTS=1: cut them off too; SCENARIO=kill,endgame,stop,linear,hub,hub-embedded,outage
	$(GO) run ./e2e/crash -gateway ./gateway -minutes $(MINUTES) -scenario $(SCENARIO) -faults=$(if $(FAULTS),true,false)

.PHONY: deps
deps: e2e/node_modules/.installed ## Install Azurite, the OpenAI SDK and DuckDB for tests

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

# The last commit whose ledger wrote the account's row twice per request.
FIRST_FORM := 0016f78

.PHONY: bench-ledger
bench-ledger: deps build ## Measure the ledger against its first form; writes docs/benchmarks.md
	@first=$$(mktemp -d) && trap 'rm -rf "$$first"' EXIT && trap 'exit 130' INT TERM && \
		git archive $(FIRST_FORM) | tar -x -C "$$first" && \
		(cd "$$first" && $(GO) build -trimpath -o gateway ./handler) && \
		$(GO) run ./e2e/ledgerbench -first "$$first/gateway" -commit $(FIRST_FORM) -gateway ./gateway -out docs/benchmarks.md $(ARGS)

.PHONY: lint
lint: ## Static checks with the pinned linters
	$(LINT) golangci-lint run ./...

.PHONY: fmt
fmt: ## Format the Go code
	gofmt -w handler e2e

.PHONY: bench-tokens
bench-tokens: ## Counting tokens against pkoukk/tiktoken-go
	$(GO) test ./handler/internal/tokens -run xxx -bench 'Count|Pkoukk|Unbroken|Load|BenchmarkPrompt' -benchtime 300ms -count 3

.PHONY: fuzz
fuzz: ## Fuzz every parser for FUZZTIME each (default 20s)
	@for pkg in $$($(GO) list ./handler/...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $${FUZZTIME:-20s} -fuzzminimizetime 10x $$pkg || exit 1; \
		done; \
	done

.PHONY: clean
clean: ## Remove what was built
	rm -rf gateway dist e2e/node_modules
