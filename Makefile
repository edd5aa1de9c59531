# Costgate. `make help` lists the targets.
SHELL := /bin/sh
GO ?= go
NPM ?= npm
NODE ?= node
FUNC ?= func
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

# The files of an application on the Functions host, but for its binary.
define assemble
rm -rf dist && install -d -m 755 dist
install -m 644 host.json .funcignore dist/
for f in functions/*/; do n=$$(basename "$$f"); install -d -m 755 "dist/$$n" && install -m 644 "functions/$$n/function.json" "dist/$$n/" || exit 1; done
endef

# The same source gives the same bytes, wherever and whenever it is built. So no commit is stamped in: a clone, an
# archive of it and a tree with another README would differ.
.PHONY: package
package: ## Assemble dist/, what the Functions host runs (static, linux/amd64)
	$(assemble)
	CGO_ENABLED=0 GOOS=linux GOARCH=amd64 GOAMD64=v1 $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -buildid=" -o dist/gateway ./handler
	chmod 755 dist/gateway

.PHONY: zip
zip: package ## Write bin/costgate.zip from dist/, for az functionapp deployment source config-zip
	@$(GO) run ./e2e/pack/cmd/pack -dist dist -out bin/costgate.zip

.PHONY: need-func
need-func:
	@command -v "$(FUNC)" >/dev/null 2>&1 || { echo "$(FUNC) is not here: install Azure Functions Core Tools 4.x" \
		"(npm install -g azure-functions-core-tools@4). To try the gateway without it: make run"; exit 1; }

# The binary is for this machine. DATA_DIR is outside of dist/, which each package makes anew. The simulator has a name of
# its own, so that a debugger finds the gateway by its name; Azurite saves its tables on SIGINT only.
.PHONY: start
start: need-func deps build ## Run dist/ in the real Functions host, with Azurite and the simulator beside it; DEBUG=1: for a debugger
	$(assemble)
	$(GO) build $(if $(DEBUG),-gcflags "all=-N -l",-trimpath) -o dist/gateway ./handler
	install -m 600 local.settings.json dist/
	@mkdir -p .data/azurite && cp gateway .data/simulator; helpers=; trap 'kill -INT $$helpers; sleep 1; kill $$helpers 2>/dev/null; wait' EXIT; trap 'exit 130' INT TERM; \
	.data/simulator simulator & helpers="$$helpers $$!"; \
	$(NODE) e2e/node_modules/azurite/dist/src/azurite.js --silent --disableTelemetry --skipApiVersionCheck --location .data/azurite & helpers="$$helpers $$!"; \
	DATA_DIR="$(CURDIR)/.data" $(FUNC) start --script-root dist

.PHONY: need-app
need-app:
	@test -n "$(APP)" || { echo "Say which function app: make publish APP=<name>"; exit 2; }

.PHONY: publish
publish: need-app need-func package ## Deploy to the function app APP= with the func CLI
	cd dist && $(FUNC) azure functionapp publish "$(APP)" --custom $(if $(AZURE_SUBSCRIPTION_ID),--subscription "$(AZURE_SUBSCRIPTION_ID)")

BICEP ?= bicep
.PHONY: need-bicep
need-bicep:
	@command -v $(BICEP) >/dev/null 2>&1 || { echo "The Bicep compiler is not installed: https://aka.ms/bicep-install, or make infra BICEP=<its path>"; exit 2; }

.PHONY: infra
infra: need-bicep ## Compile, lint and evaluate the Bicep files with BICEP=; writes azuredeploy.json and the snapshots
	UPDATE=1 BICEP="$$(command -v $(BICEP))" $(GO) test ./handler -count=1 -run 'TestInfraBuild$$'
	BICEP= $(GO) test ./handler -count=1 -run TestInfra

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
	rm -rf gateway dist bin e2e/node_modules
