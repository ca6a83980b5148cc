# SPDX-License-Identifier: Apache-2.0
.DEFAULT_GOAL := help
JSON ?= .build/bench/figures.json

deps: ## install the Debian packages that are missing; fetch virtme-ng and the lab's kernels
	scripts/install-packages
	scripts/fetch-kernel 6.1
	scripts/fetch-kernel 6.12
build: module ## build everything: the Swift package, and the module for the lab's kernels
	swift build
module: ## build the module for the lab's kernels, in .build/kmod
	scripts/build-module 6.1
	scripts/build-module 6.12
demo: ## boot the lab and show the whole path: module, VMM, emulation process, guest
	scripts/demo
test: ## run every test: on this machine, and in the lab on each kernel
	@scripts/test
sanitize: ## run the tests on kernels with KASAN, lockdep, KCSAN, kmemleak and fault injection, which are built first
	@scripts/sanitize
fuzz: ## do random operations against a model in the lab: DURATION=seconds SEED=number KERNEL=kasan|kcsan|6.1|6.12
	@scripts/fuzz
bench: ## count what an access costs on every path, in the lab: JSON=file HTML=file OPTIONS='of mmiofd-bench'
	@scripts/bench --json '$(JSON)' $(OPTIONS)
	@swift build --product mmiofd >&2
	@.build/debug/mmiofd bench table '$(JSON)'
	@$(if $(HTML),.build/debug/mmiofd bench report '$(JSON)' --html '$(HTML)')
bench-check: ## fail if a main row of the benchmark is more than 2 % dearer than Benchmarks/figures.json has it
	@scripts/bench-check
lint: ## run the formatters and checkers
	@scripts/lint
clean: ## remove what was built; the cache stays
	rm -rf .build
help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 13

.PHONY: deps build module demo test sanitize fuzz bench bench-check lint clean help
