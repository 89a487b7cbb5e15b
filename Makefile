# What people do here; `make help` lists the rest.
#
#   make               join the parts in src/ into anyio_net.hpp
#   make demo          build examples/demo.cpp and run it: needs only a compiler
#   make programs      build the examples, into build/gcc/examples
#   make test          install what is missing, build and run all tests
#   make check         all that CI does
#   make check-cost    compare the cost of the hot paths with the record; check-weight: of including the header
#   make fuzz          run all fuzz targets, some seconds each
#   make bench         measure against other libraries
#   make format        format all sources, before a commit
#   make install       install header, CMake and pkg-config files; PREFIX says where
#
# A mode is a compiler with flags, and has a folder of its own under build/. To run the tests of one:
#
#   make MODE=clang-asan build/clang-asan/run_tests && build/clang-asan/run_tests
#
# Sections: modes, files, building, testing. fuzz/fuzz.mk, bench/bench.mk and tools/*/*.mk hold the rest.

PYTHON ?= python3
CLANGXX ?= clang++
CLANG_FORMAT ?= clang-format-16
CLANG_TIDY ?= clang-tidy
CLANG19XX ?= clang++-19
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
MODE ?= gcc

MAKEFLAGS += --no-print-directory
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(JOBS)
endif

# ---- modes ----------------------------------------------------------------------------------------

# An assertion is then a plain call, which compiles faster; an exception in one ends its case.
ASSERTIONS := -DDOCTEST_CONFIG_SUPER_FAST_ASSERTS
NO_EXCEPTIONS := -fno-exceptions -fno-rtti -DDOCTEST_CONFIG_NO_EXCEPTIONS_BUT_WITH_ALL_ASSERTS
ASAN := -O0 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
# g++ takes 7 % less time when it collects no garbage below 1 GB.
HEAP := --param ggc-min-heapsize=1000000

# With lines for a debugger g++ takes 6 % longer, and only the sanitizers need them: otherwise `make CXXFLAGS=-g`.
# Most modes do not optimise: they compile three times as fast, and no tail call hides a stack that grows. In split
# modes the definitions are compiled once; the others (clang-tsan in CI) test the header as most programs include it.
compiler.gcc := $(CXX)
flags.gcc := -O0 $(HEAP) -DANYIO_NET_SPLIT
compiler.clang := $(CLANGXX)
flags.clang := -O2 -g1 -DANYIO_NET_SPLIT
compiler.gcc-noexc := $(CXX)
# In CI only the definitions are optimised, for the warnings that come of it; `make check-long` optimises the tests too.
flags.gcc-noexc := $(if $(ALL),-O1,-O0) $(HEAP) -Werror -DANYIO_NET_SPLIT $(NO_EXCEPTIONS)
definitions_flags.gcc-noexc := -O1
compiler.clang-asan := $(CLANGXX)
# clang 14 cannot check function types of coroutines that several units share.
flags.clang-asan := $(ASAN) -fno-sanitize=function -DANYIO_NET_SPLIT
compiler.gcc-asan := $(CXX)
flags.gcc-asan := $(ASAN) $(HEAP) -DANYIO_NET_SPLIT
compiler.clang-asan-noexc := $(CLANGXX)
flags.clang-asan-noexc := $(ASAN) -fno-sanitize=function $(NO_EXCEPTIONS)
compiler.clang-tsan := $(CLANGXX)
flags.clang-tsan := -O1 -g1 -fsanitize=thread
# The kqueue backend, over a kqueue for tests that is made of epoll.
compiler.kqueue := $(CXX)
flags.kqueue := -O0 $(HEAP) -DANYIO_NET_KQUEUE -Itests/support/kqueue
# A younger compiler, another standard library, and later standards; the last -std counts.
compiler.libcxx := $(CLANG19XX)
flags.libcxx := -O0 -g1 -Werror -stdlib=libc++
compiler.libcxx-26 := $(CLANG19XX)
flags.libcxx-26 := -O2 -g1 -Werror -stdlib=libc++ -std=gnu++26 -DANYIO_NET_SPLIT
compiler.gcc-23 := $(CXX)
flags.gcc-23 := -O1 -g1 $(HEAP) -Werror -std=c++23
# Coverage is counted by part: the header is then one of includes.
compiler.coverage := $(CXX)
flags.coverage := -O0 -g --coverage -Ibuild/include -Isrc

# Other processors, for which Debian's compilers cross-compile and whose programs qemu runs: tools/cross/cross.mk.
PROCESSORS := s390x arm aarch64 riscv64
triplet.s390x := s390x-linux-gnu
triplet.arm := arm-linux-gnueabihf
triplet.aarch64 := aarch64-linux-gnu
triplet.riscv64 := riscv64-linux-gnu
define processor_mode
compiler.$1 := $(triplet.$1)-g++
flags.$1 := -O0 $(HEAP) -Wno-psabi -DANYIO_NET_TEST_SLOW=1 -DANYIO_NET_SPLIT -isystem build/doctest
emulate.$1 := tools/cross/emulate.sh qemu-$1 /usr/$(triplet.$1)
endef
$(foreach p,$(PROCESSORS),$(eval $(call processor_mode,$p)))

COMPILER := $(compiler.$(MODE))
ifeq ($(COMPILER),)
$(error MODE is one of $(patsubst compiler.%,%,$(filter compiler.%,$(.VARIABLES))), not $(MODE))
endif
WARNINGS := -Wall -Wextra
COMPILE = $(COMPILER) -std=c++20 -pthread $(WARNINGS) $(ASSERTIONS) $(flags.$(MODE)) $(MACROS) -I. -Itests $(CPPFLAGS) $(CXXFLAGS)
BUILD := build/$(MODE)
KQUEUE := $(if $(filter kqueue,$(MODE)),$(BUILD)/tests/support/kqueue/kqueue.o)

# The TLS libraries. Tests use both at once, programs one of them. Other processors' are not to be had here.
ENGINES := $(if $(filter $(PROCESSORS),$(MODE)),,mbedtls openssl)
macro.mbedtls := -DANYIO_NET_MBEDTLS
libs.mbedtls := -lmbedtls -lmbedx509 -lmbedcrypto
macro.openssl := -DANYIO_NET_OPENSSL
libs.openssl := -lssl -lcrypto
TLS_MACROS := $(foreach e,$(ENGINES),$(macro.$e))
TLS_LIBS := $(foreach e,$(ENGINES),$(libs.$e))

# ---- files ----------------------------------------------------------------------------------------

HEADER := anyio_net.hpp
MODULE := anyio_net.cppm
JOIN := tools/make/amalgamate.py tools/make/cpp_text.py
PARTS := $(wildcard src/*/*.[hi]pp src/*/*/*.[hi]pp)
ALL_TESTS := $(wildcard tests/*/test_*.cpp)
THREAD_TESTS := $(wildcard tests/*/test_threads*.cpp tests/*/test_post*.cpp tests/*/test_resolve*.cpp)
TESTS := $(if $(filter clang-tsan,$(MODE)),$(THREAD_TESTS),$(ALL_TESTS))
# Without exceptions CI runs what raises errors and hands them on, a stream for all that are made of operations; `make
# check-long` runs all.
RAISING_TESTS := $(wildcard $(foreach d,base operation stream,tests/$d/test_*.cpp) tests/contract/test_api_*.cpp \
  tests/contract/test_same_outcome.cpp tests/contract/test_conformance_memory.cpp)
TESTS := $(if $(ALL),$(TESTS),$(if $(filter gcc-noexc,$(MODE)),$(RAISING_TESTS),$(TESTS)))
# Of another processor CI runs what meets addresses, messages and numbers of the system, where the order of bytes tells;
# `make cross` runs all.
PROCESSOR_TESTS := address api_options epoll_backend buffer byte_queue datagram_connect error fd_passing multicast \
  resolve signals sim_network sim_system udp_batch unix_datagram
TESTS := $(if $(ALL),$(TESTS),$(if $(filter $(PROCESSORS),$(MODE)),$(wildcard $(PROCESSOR_TESTS:%=tests/*/test_%.cpp)),$(TESTS)))
ENGINE_TESTS = $(shell grep -l 'support/\(tls_engines\|certificates\)[.]hpp' $(ALL_TESTS))
TESTS := $(if $(ENGINES),$(TESTS),$(filter-out $(ENGINE_TESTS),$(TESTS)))
TLS_SOURCES := $(wildcard $(foreach d,examples tests/peers,$d/https_*.cpp $d/tls_*.cpp $d/starttls*.cpp $d/net_cat.cpp))
EXAMPLES := $(filter-out $(TLS_SOURCES),$(wildcard examples/*.cpp))
PEERS := $(filter-out $(TLS_SOURCES),$(wildcard tests/peers/*.cpp))
EXAMPLE_SUPPORT := $(wildcard examples/support/*.hpp)
SCRIPTS := $(wildcard tests/scripts/*.sh)
COMPILING_SCRIPTS := $(wildcard tests/scripts/packages.sh tests/scripts/module.sh tests/scripts/same_outcome.sh tests/scripts/mistakes.sh \
  tests/scripts/gdb.sh tests/scripts/foreign_protocol.sh)
FOLDERS := $(sort $(patsubst %/,%,$(dir $(ALL_TESTS)))) tests/support tests/support/kqueue tests/support/kqueue/sys \
  tests/peers tests/cases tests/mistakes tests/minimal tests/packages tests/preload tests/foreign examples examples/support \
  examples/bridges bench fuzz fuzz/support
FORMATTED := $(PARTS) $(wildcard $(foreach d,$(FOLDERS),$d/*.cpp $d/*.hpp $d/*.h))

# Several test files are compiled at once, in units of about JOIN_LINES lines each; with JOIN_LINES= each file by itself. One whose
# macros are its own cannot be joined. Longer units take less time in all, since they share templates, and more memory: up to 2.2 GB each.
JOIN_LINES ?= 3500
MACRO_TESTS := $(filter tests/tls/test_tls_sim.cpp,$(TESTS))
UNITS := $(if $(and $(JOIN_LINES),$(filter %/run_tests,$(MAKECMDGOALS))),$(shell \
  $(PYTHON) tools/make/join_tests.py --apart tls,simulation $(BUILD)/units $(JOIN_LINES) $(filter-out $(MACRO_TESTS),$(TESTS))) $(MACRO_TESTS))
UNITS := $(or $(strip $(UNITS)),$(TESTS))
# The definitions take long: they come first.
OBJECTS := $(patsubst $(BUILD)/$(BUILD)/%,$(BUILD)/%,$(patsubst %.cpp,$(BUILD)/%.o,$(wildcard tests/support/*.cpp) $(UNITS))) $(KQUEUE)
# Bridges to other libraries are built where those are.
has_package = $(shell pkg-config --exists $1 2>/dev/null && echo $1)
BRIDGES := $(if $(filter gcc clang gcc-asan clang-asan,$(MODE)),$(patsubst %,examples/bridges/%.cpp,foreign_coroutine sender \
  $(if $(wildcard /usr/include/asio/awaitable.hpp),with_asio) $(if $(call has_package,libuv),with_libuv) \
  $(if $(call has_package,glib-2.0),with_glib)))
PROGRAMS := $(patsubst %.cpp,$(BUILD)/%,$(EXAMPLES) $(BRIDGES) $(PEERS))
# examples/x.cpp is built once for each TLS library: examples-openssl/x
tls_program = $(BUILD)/$(patsubst %/,%-$2,$(dir $1))/$(basename $(notdir $1))
TLS_PROGRAMS := $(foreach e,$(ENGINES),$(foreach s,$(TLS_SOURCES),$(call tls_program,$s,$e)))

# ---- building -------------------------------------------------------------------------------------

.PHONY: all
all: $(HEADER) $(MODULE) ## join the parts in src/ into anyio_net.hpp, and list its names in anyio_net.cppm (the default)
	@echo "$(HEADER) is ready; 'make demo' shows it, 'make test' tests it, 'make help' tells more"

$(HEADER): $(PARTS) src/manifest.txt $(JOIN)
	@$(PYTHON) tools/make/amalgamate.py

$(MODULE): $(HEADER) tools/make/export_names.py tools/make/cpp_text.py
	@$(PYTHON) tools/make/export_names.py

build/include/$(HEADER): src/manifest.txt $(JOIN)
	@$(PYTHON) tools/make/amalgamate.py --includes $@

$(BUILD)/%.o: %.cpp $(HEADER) Makefile
	@mkdir -p $(@D)
	@echo "  $(MODE): $<"
	@$(COMPILE) -MMD -MP -c $< -o $@

# With the names of files as they are when each is compiled by itself: doctest sorts by them.
$(BUILD)/units/%.o: $(BUILD)/units/%.cpp $(HEADER) Makefile
	@echo "  $(MODE): $<"
	@$(COMPILE) -fmacro-prefix-map=./= -MMD -MP -c $< -o $@

SIM_MACROS := -DANYIO_NET_SIM
$(BUILD)/tests/tls/%.o $(BUILD)/units/tls-%.o: MACROS := $(TLS_MACROS)
# For docs/proved.md.
COUNT_RUNS := -include tests/support/simulated_runs.hpp
$(BUILD)/tests/tls/test_tls_sim.o: MACROS := $(TLS_MACROS) $(SIM_MACROS) $(COUNT_RUNS)
$(BUILD)/tests/simulation/%.o $(BUILD)/units/simulation-%.o: MACROS := $(SIM_MACROS) $(COUNT_RUNS)
$(BUILD)/tests/support/system_script.o: MACROS := $(SIM_MACROS)
$(BUILD)/tests/support/implementation.o: MACROS := $(TLS_MACROS) $(SIM_MACROS) $(definitions_flags.$(MODE))

$(BUILD)/run_tests: $(OBJECTS)
	@$(COMPILE) $^ $(LDFLAGS) $(TLS_LIBS) $(LDLIBS) -o $@
	@$(if $(emulate.$(MODE)),$(emulate.$(MODE)) $@)

# What programs are linked with: in split modes the definitions that the tests have too, with both TLS libraries.
DEFINITIONS := $(if $(findstring ANYIO_NET_SPLIT,$(flags.$(MODE))),$(BUILD)/tests/support/implementation.o)
PROGRAM_LIBS := $(if $(DEFINITIONS),$(TLS_LIBS))

# g++ takes a precompiled header where it is the first include, and each program compiles a second or two faster. It
# stands in a folder for each TLS library, beside a link for those that include the header again.
precompiled = $(if $(filter gcc,$(MODE)),$(BUILD)/precompiled$1/$(HEADER).gch)
with_precompiled = $(patsubst %/$(HEADER).gch,-I%,$(call precompiled,$1))
$(call precompiled,) $(foreach e,$(ENGINES),$(call precompiled,-$e)): $(BUILD)/precompiled%/$(HEADER).gch: $(HEADER) Makefile
	@mkdir -p $(@D)
	@ln -sf $(CURDIR)/$(HEADER) $(@D)/$(HEADER)
	@$(COMPILE) -w $(macro$(subst -,.,$*)) -x c++-header $(HEADER) -o $@

$(PROGRAMS:=.o): private MACROS := $(call with_precompiled,)
$(PROGRAMS:=.o): $(call precompiled,)
$(PROGRAMS): %: %.o $(DEFINITIONS) $(KQUEUE)
	@$(COMPILE) $^ $(LDFLAGS) $(PROGRAM_LIBS) $(LDLIBS) -o $@

define bridge_rule
$(BUILD)/examples/bridges/$1.o: private CPPFLAGS += $$(shell pkg-config --cflags $2)
$(BUILD)/examples/bridges/$1: private LDLIBS += $$(shell pkg-config --libs $2)
endef
$(eval $(call bridge_rule,with_libuv,libuv))
$(eval $(call bridge_rule,with_glib,glib-2.0))

define tls_program_rule
$(call tls_program,$1,$2): private MACROS := $(call with_precompiled,-$2) $(macro.$2)
$(call tls_program,$1,$2): $1 $(EXAMPLE_SUPPORT) $(HEADER) Makefile $(call precompiled,-$2) $(DEFINITIONS) $(KQUEUE)
	@mkdir -p $$(@D)
	@echo "  $(MODE): $1, $2"
	@$$(COMPILE) $1 $(DEFINITIONS) $(KQUEUE) $$(LDFLAGS) \
	  $(if $(DEFINITIONS),$(TLS_LIBS),$(libs.$2)) $$(LDLIBS) -o $$@
endef
$(foreach e,$(ENGINES),$(foreach s,$(TLS_SOURCES),$(eval $(call tls_program_rule,$s,$e))))

# Cross compilers see nothing of this system's own headers; doctest is one file.
build/doctest/doctest/doctest.h:
	@mkdir -p $(@D)
	@cp "$$(echo '#include <doctest/doctest.h>' | $(CXX) -x c++ -M - | tr ' ' '\n' | grep 'doctest[.]h$$')" $@
$(if $(emulate.$(MODE)),$(OBJECTS): | build/doctest/doctest/doctest.h)

.PRECIOUS: $(BUILD)/%.o
.DELETE_ON_ERROR:
ifeq ($(MODE),coverage)
$(OBJECTS): build/include/$(HEADER)
endif
-include $(OBJECTS:.o=.d) $(PROGRAMS:=.d)

.PHONY: programs
programs: $(PROGRAMS) $(TLS_PROGRAMS) ## build the examples, into build/gcc/examples, and the peers of tests/scripts

# Needs only a compiler: the header is taken as it lies there.
.PHONY: demo
demo: ## build examples/demo.cpp and run it
	@mkdir -p build
	$(CXX) -std=c++20 -O2 -pthread -I. $(CPPFLAGS) $(CXXFLAGS) examples/demo.cpp -o build/demo $(LDFLAGS) $(LDLIBS)
	@./build/demo

.PHONY: clean
clean: ## remove what was built
	@rm -rf build

include fuzz/fuzz.mk
include tools/cross/cross.mk
include tools/make/install.mk
include tools/make/minimal.mk
include tools/make/cases.mk
include tools/make/compilers.mk
include tools/make/site.mk
include bench/bench.mk

# ---- testing --------------------------------------------------------------------------------------

RUN := $(PYTHON) tools/make/run_tests.py
suite = --suite "tests, $1" "$(MAKE) MODE=$1 build/$1/run_tests record-mode" build/$1/run_tests
check = --check "$1" "$(MAKE) $2"

# Facts about a mode for the record of a run, which docs/proved.md is made of.
mbedtls_version = echo MBEDTLS_VERSION_STRING | $(CXX) -E -P -include mbedtls/version.h -x c++ - | tail -n 1 | tr -d '"'
tls_record = printf 'record: {"tls": "mbedTLS %s, %s"}\n' "$$($(mbedtls_version))" "$$(openssl version | cut -d ' ' -f 1-2)"
.PHONY: record-mode
record-mode:
	@printf 'record: {"mode": "%s", "compiler": "%s", "target": "%s", "flags": "%s"}\n' '$(MODE)' \
	  "$$($(COMPILER) --version | head -n 1)" "$$($(COMPILER) -dumpmachine)" '$(filter -%,-std=c++20 $(flags.$(MODE)))'
	@$(if $(filter tests/tls/%,$(TESTS)),$(tls_record))
	@$(if $(emulate.$(MODE)),printf 'record: {"emulator": "%s"}\n' "$$(qemu-$(MODE) --version | head -n 1)")

.PHONY: proved
proved: ## docs/proved.md from the record of the last run of .ci/run, and of others in build/record
	@$(PYTHON) tools/make/proved.py docs/proved.md build/record/ci.json $(filter-out build/record/ci.json,$(wildcard build/record/*.json))

.PHONY: test
test: ## install what is missing, build and run all tests: some minutes
	@tools/make/install_deps.sh test
	@$(MAKE) --silent $(HEADER)
	@$(RUN) $(call suite,gcc) $(call check,examples and peers build,programs) \
	  $(patsubst %,--script %,$(filter-out $(COMPILING_SCRIPTS),$(SCRIPTS)))

.PHONY: check
check: ## everything that CI does
	@.ci/run

.PHONY: check-rest
check-rest: ## what CI does after `make test`
	@tools/make/install_deps.sh check
	@$(RUN) \
	  $(call check,nothing asks the system outside the seam,check-seam) \
	  $(call check,nothing costly is included,check-includes) \
	  $(call check,changelog and README are of this version,check-version) \
	  $(call check,tools do what they say,check-tools) \
	  $(call check,format,check-format) \
	  $(call check,documents and comments keep to plain words,check-words) \
	  $(call check,hot paths cost what is recorded,check-cost) \
	  $(call check,programs pay for the header what is recorded,check-weight) \
	  $(call suite,clang-asan) $(call suite,gcc-noexc) \
	  $(if $(THREAD_TESTS),$(call suite,clang-tsan)) $(call cross_suite,s390x) \
	  --check "tidy; each part compiles by itself; no warnings; snippets compile; units link only when they agree" \
	    "$(MAKE) -j$(JOBS) --keep-going check-tidy check-parts check-compilers check-snippets check-link" \
	  $(call check,the reference is of these sources and has no warning,check-reference) \
	  $(call check,small builds of many kinds run,check-minimal) \
	  $(call check,programs of faults that others have met,check-cases) \
	  $(call check,fuzz corpora with clang,fuzz-replay-clang) \
	  $(COMPILING_SCRIPTS:%=--script %)

# The sweeps of the tests are done in full, and the analyzer has its default.
.PHONY: check-long
check-long: ## what CI leaves out: all tests in further modes, on kqueue, with all seeds, and the rest of the checks: two hours
	@tools/make/install_deps.sh check
	@ALL=1 ANYIO_NET_TEST_LONG=1 $(RUN) --record build/record/long.json --timeout 3000 \
	  $(call suite,gcc) $(call suite,clang) $(call suite,clang-asan) $(call suite,gcc-noexc) \
	  $(call suite,gcc-asan) $(call suite,clang-asan-noexc) $(call suite,kqueue) \
	  $(call check,tidy in full,check-tidy ANALYZER_NODES=225000) \
	  $(call check,small builds of all kinds run,check-minimal-all) \
	  $(call check,programs of faults with both compilers,check-cases-all) \
	  $(call check,fuzz corpora with g++,fuzz-replay-gcc) \
	  $(call cross_check,s390x,fuzz corpora,fuzz-replay-s390x REPLAY_RANDOM=0)

.PHONY: check-seam
check-seam: ## nothing outside the seam, in src/system, makes a system call
	@$(PYTHON) tools/checks/check_seam.py --self-test
	@$(PYTHON) tools/checks/check_seam.py

.PHONY: check-includes
check-includes: ## the header does without iostream, locale, regex and std::function
	@$(PYTHON) tools/checks/check_includes.py --self-test
	@$(PYTHON) tools/checks/check_includes.py

.PHONY: check-version
check-version: ## the changelog's newest entry and the README are of the version that the header states
	@$(PYTHON) tools/checks/check_version.py

.PHONY: check-tools
check-tools: ## the tools' own tests
	@$(PYTHON) tools/checks/test_tools.py
	@$(PYTHON) tools/checks/test_documents.py

# The record in bench/cost_record.json is for these flags.
build/cost/cost: bench/cost.cpp $(HEADER) Makefile
	@mkdir -p $(@D)
	@$(CXX) -std=c++20 -O2 -g1 -pthread $(WARNINGS) -I. $< -Wl,-z,now -o $@

.PHONY: check-cost
check-cost: build/cost/cost ## no hot path takes more instructions, system calls or allocations than recorded
	@$(PYTHON) tools/checks/check_cost.py $< --jobs $(JOBS)

.PHONY: record-cost
record-cost: build/cost/cost ## write what the hot paths cost now into bench/cost_record.json
	@$(PYTHON) tools/checks/check_cost.py $< --jobs $(JOBS) --record

.PHONY: check-weight
check-weight: $(HEADER) ## no program takes more of the compiler's memory, or of its own, than recorded
	@$(PYTHON) tools/checks/check_weight.py --jobs $(JOBS)

.PHONY: record-weight
record-weight: $(HEADER) ## write what programs pay for the header now into bench/weight_record.json
	@$(PYTHON) tools/checks/check_weight.py --jobs $(JOBS) --record

.PHONY: check-format
check-format: ## sources are formatted
	@$(CLANG_FORMAT) --dry-run -Werror $(FORMATTED)

.PHONY: format
format: ## format all sources
	@$(CLANG_FORMAT) -i $(FORMATTED)

.PHONY: check-parts
check-parts: $(PARTS:src/%=build/parts/%.ok) ## each part includes what it uses

# A part with definitions that begin by including its declarations is compiled once for both.
build/parts/%.ok: src/% $(PARTS)
	@mkdir -p $(@D)
	@[ "$$(grep -sm1 '^#include' $(<:.hpp=.ipp))" = '#include "$*"' ] || echo '#include "$*"' | $(CXX) -std=c++20 $(WARNINGS) -DANYIO_NET_SPLIT $(TLS_MACROS) $(SIM_MACROS) -fsyntax-only -Isrc -x c++ -
	@touch $@

.PHONY: check-words
check-words: ## documents, comments and strings do without the words of tools/checks/words.txt
	@$(PYTHON) tools/checks/check_words.py

.PHONY: check-link
check-link: $(HEADER) ## units that disagree on a layout do not link
	@tools/checks/check_link.sh $(CXX) $(CLANGXX)

# How much of a function's ways the analyzer follows. With its default, 225,000, it takes ten times as long as with
# this number; check-long does that.
ANALYZER_NODES ?= 10000

.PHONY: check-tidy
check-tidy: build/include/$(HEADER) ## clang-tidy over all parts
	@echo '#include "$(HEADER)"' >build/tidy.cpp
	@$(CLANG_TIDY) --quiet --warnings-as-errors='*' build/tidy.cpp -- -std=c++20 -Ibuild/include -Isrc -I. $(TLS_MACROS) $(SIM_MACROS) \
	  -Xclang -analyzer-opt-analyze-headers -Xclang -analyzer-config -Xclang max-nodes=$(ANALYZER_NODES)

.PHONY: check-snippets
check-snippets: $(HEADER) ## the documents' code compiles
	@$(PYTHON) tools/checks/check_snippets.py

REFERENCE := build/reference
define make_reference
	@rm -rf $(REFERENCE) && mkdir -p $(REFERENCE)
	@doxygen docs/Doxyfile
	@doxygen docs/Doxyfile.xml
endef

.PHONY: reference
reference: ## docs/reference.md from the comments in src/, and build/reference/html/index.html; a warning is an error
	$(make_reference)
	@$(PYTHON) tools/make/reference.py $(REFERENCE)/xml docs/reference.md
	@echo "docs/reference.md and $(REFERENCE)/html/index.html"

.PHONY: check-reference
check-reference: ## docs/reference.md is what src/ gives, and Doxygen has no warning
ifeq ($(shell command -v doxygen),)
	@echo "skipped: no doxygen: docs/reference.md is not compared with src/"
else
	$(make_reference)
	@$(PYTHON) tools/make/reference.py --check $(REFERENCE)/xml docs/reference.md
endif

.PHONY: coverage
coverage: ## line coverage of src/ by the tests, with g++
	@find build/coverage -name '*.gcda' -delete 2>/dev/null || true
	@$(MAKE) MODE=coverage build/coverage/run_tests
	@build/coverage/run_tests --no-colors
	@gcovr --root . --filter 'src/' --object-directory build/coverage --print-summary

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1: \2/p' Makefile fuzz/fuzz.mk bench/bench.mk $(wildcard tools/*/*.mk)
