# SPDX-License-Identifier: Apache-2.0
.DEFAULT_GOAL := help

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
fuzz: ## do random operations against a model in the lab: DURATION=seconds SEED=number KERNEL=kasan|6.1|6.12
	@scripts/fuzz
lint: ## run the formatters and checkers
	@scripts/lint
clean: ## remove what was built; the cache stays
	rm -rf .build
help: ## show this
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

.PHONY: deps build module demo test sanitize fuzz lint clean help
