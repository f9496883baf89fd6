# Freshet: build, run and test. `make help` lists the targets.

VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GO       ?= go
LDFLAGS  := -s -w -X main.version=$(VERSION)

# The same settings for all but the race detector, so that tests and linters do not
# compile once more what a build has compiled.
export CGO_ENABLED := 0
export GOFLAGS     := $(strip $(GOFLAGS) -trimpath)
# Kernels of vectors, where the toolchain has the package for them; `GOEXPERIMENT= make
# test` builds and tests the plain forms instead.
ifeq ($(origin GOEXPERIMENT),undefined)
export GOEXPERIMENT := $(shell GOEXPERIMENT=simd $(GO) env GOOS >/dev/null 2>&1 && echo simd)
endif

.PHONY: help build run test soak failovers elastic kafka keda race fuzz openapi python check format bench bench-peers proto clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-11s %s\n", $$1, $$2}'

build: ## build bin/freshet, one static binary
	@mkdir -p bin
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/freshet ./cmd/freshet

run: ## run the main job: a cluster learns a simulated shop's clicks
	@echo "building bin/freshet (the first build takes a minute or two; later ones a second) ..."
	@$(MAKE) --no-print-directory build
	bin/freshet up --example shop --events 1000000 --until-end

test: ## run all tests; tests on real data need FRESHET_DATA=DIR
	$(GO) vet ./...
	$(GO) test ./...

race: ## run all tests with the race detector
	CGO_ENABLED=1 $(GO) test -race ./...

SOAK ?= 30m
soak: ## run schedules of faults over clusters that learn for SOAK, audited
	$(GO) test -v -timeout 0 -run '^TestNothingIsLostOrDoubledWhateverGoesWrong$$' ./test -args -soak $(SOAK)

FAILOVERS ?= 100
failovers: ## kill FAILOVERS nodes under an inference pod, which has to answer all the time
	$(GO) test -v -timeout 0 -run '^TestAPodAnswersAndNeverGoesBackWhateverDies$$' ./test -args -failovers $(FAILOVERS)

FUZZTIME ?= 20s
fuzz: ## fuzz every decoder for FUZZTIME each
	@grep -rHoE '^func Fuzz[A-Za-z0-9]+' --include='*_test.go' . | sort | while IFS=: read -r file func; do \
		echo "$$file $${func#func }"; \
		$(GO) test -run '^$$' -fuzz "^$${func#func }$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")" || exit 1; \
	done

ELASTIC ?= -moves 200 -cycles 2 -elastic-rate 40000 -elastic-rest 10s
elastic: ## let a cluster grow, shrink and move shards for minutes while it learns and is read
	$(GO) test -v -timeout 0 -run '^TestTheClusterGrowsAndShrinksWhileItLearns$$' ./test -args $(ELASTIC)

keda: build ## let KEDA's own client ask a coordinator how many workers it wants
	FRESHET_BIN=$(CURDIR)/bin/freshet $(GO) test -C test/keda -count=1 -v ./...

KAFKA ?=
kafka: build ## learn real clicks through a real broker of Kafka; needs Java, Maven and FRESHET_DATA
	python3 test/kafka/run.py --freshet bin/freshet $(KAFKA)

OPENAPI ?=
openapi: build ## let schemathesis look for what a pod's HTTP does not bear; needs Python, OPENAPI=-h
	$(GO) build -o bin/openapi-pod ./test/openapi/pod
	python3 test/openapi/run.py --pod bin/openapi-pod $(OPENAPI)
	python3 test/openapi/run.py --serve bin/freshet $(OPENAPI)

PYTEST ?=
python: build ## check the Python package, against a real cluster too; PYTEST=-s shows figures
	proto/python/check.sh bin/freshet $(PYTEST)

check: bin/golangci-lint bin/buf ## linters, formatting, generated code up to date
	bin/golangci-lint run ./...
	cd proto && ../bin/buf lint
	@rm -rf bin/.proto
	cd proto && ../bin/buf generate -o ../bin/.proto
	diff -r --exclude='*.proto' --exclude='*.yaml' --exclude=python bin/.proto proto

format: bin/golangci-lint ## format the code as check wants it
	bin/golangci-lint fmt

proto: bin/buf ## generate code from proto/
	cd proto && ../bin/buf generate

# Tools have modules of their own. Go builds them anew if their version changed, which
# takes two minutes, and otherwise looks for a second.
.PHONY: bin/golangci-lint bin/buf
bin/golangci-lint:
	@GOEXPERIMENT= $(GO) build -C .ci/tools/lint -o ../../../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
bin/buf:
	@GOEXPERIMENT= $(GO) build -C .ci/tools/buf -o ../../../$@ github.com/bufbuild/buf/cmd/buf

bench: ## benchmarks beside the code, then of processes over the network
	$(GO) test -run '^$$' -bench . -benchmem ./ps/... ./worker/...
	@$(MAKE) --no-print-directory build
	bin/freshet bench store
	bin/freshet bench train

PEERS ?=
bench-peers: build ## compare with Redis, Vowpal Wabbit and others, which are installed; PEERS=-h
	@$(GO) build -o bin/peers ./test/peers
	@bin/peers -freshet bin/freshet $(PEERS)

clean: ## remove what was built
	rm -rf bin
