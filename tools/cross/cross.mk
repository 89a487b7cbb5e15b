# Compiling for other processors and systems, for the Makefile: needs its variables HEADER, EXAMPLES, PEERS
# and PROCESSORS. Debian's compilers build the programs that qemu runs; tools/cross/cross.sh has one for macOS, of which nothing
# can be run, and for static programs with musl, which are run.

# Each processor is a mode, in which all tests run that need no TLS library. Without its compiler or without
# qemu it is left out, with a line that says so.
cross_need = command -v $(compiler.$1) >/dev/null && command -v qemu-$1 >/dev/null || \
  { echo '$(compiler.$1) or qemu-$1 is missing'; exit 77; };
cross_suite = --suite "tests, $1 by qemu" "$(call cross_need,$1) $(MAKE) MODE=$1 build/$1/run_tests record-mode" build/$1/run_tests
cross_check = --check "$2, $1" "$(call cross_need,$1) $(MAKE) $3"
cross_steps = $(call cross_check,$1,no warnings,$(call strict_header,$1-c++20 $1-c++20-noexc $1-c++20-nothreads)) \
  $(call cross_suite,$1) $(call cross_check,$1,fuzz corpora,fuzz-replay-$1)

.PHONY: cross $(PROCESSORS:%=cross-%)
cross: ## all tests on other processors, by qemu: s390x, arm, aarch64, riscv64; cross-arm is one; an hour
	@tools/make/install_deps.sh cross $(foreach p,$(PROCESSORS),g++-$(triplet.$p))
	@ALL=1 ANYIO_NET_TEST_LONG=1 $(RUN) --record build/record/cross.json --timeout 3000 $(foreach p,$(PROCESSORS),$(call cross_steps,$p))

$(PROCESSORS:%=cross-%): cross-%:
	@tools/make/install_deps.sh cross g++-$(triplet.$*)
	@ALL=1 ANYIO_NET_TEST_LONG=1 $(RUN) --timeout 3000 $(call cross_steps,$*)

CROSS_TARGETS ?= aarch64-macos x86_64-macos
MUSL_TARGETS ?= x86_64-linux-musl arm-linux-musleabihf
CROSS := build/cross
CROSS_FLAGS := -std=c++20 -O0 -g0 -fno-sanitize=undefined -Werror
CROSS_STRICT := -Wall -Wextra -Wpedantic -Wshadow -Wconversion
CROSS_HEADER_MODES := plain noexc nothreads sim
cross_mode.plain :=
cross_mode.noexc := -fno-exceptions -fno-rtti
cross_mode.nothreads := -DANYIO_NET_NO_THREADS
cross_mode.sim := -DANYIO_NET_SIM
CROSS_TESTS := $(filter-out tests/tls/%,$(ALL_TESTS)) $(wildcard tests/support/*.cpp)
# Both ways of compiling: tests for arm64 have all in the header, those for x86-64 in one unit.
cross_split.x86_64-macos := -DANYIO_NET_SPLIT

.PHONY: cross-macos cross-all
cross-macos: $(HEADER) ## header, examples and tests compile and link for macOS: ten minutes
	@MAKE="$(MAKE)" tools/cross/cross.sh $(CROSS_TARGETS)

.PHONY: cross-musl cross-musl-all
cross-musl: $(HEADER) ## static programs for musl, x86-64 and 32-bit ARM, compile and run: two minutes
	@tools/make/install_deps.sh cross
	@MAKE="$(MAKE)" tools/cross/cross.sh $(MUSL_TARGETS)

define cross_rules
cross-all: $(CROSS_HEADER_MODES:%=$(CROSS)/$1/header-%.o) $(patsubst %.cpp,$(CROSS)/$1/%,$(EXAMPLES) $(PEERS)) \
  $(CROSS)/$1/run_tests

$(CROSS)/$1/header-%.o: $(HEADER) $(CROSS)/c++
	@mkdir -p $$(@D)
	@$(CROSS)/c++ -target $1 $(CROSS_FLAGS) $(CROSS_STRICT) $$(cross_mode.$$*) -I. -c $(CROSS)/header.cpp -o $$@

$(patsubst %.cpp,$(CROSS)/$1/%,$(EXAMPLES) $(PEERS)): $(CROSS)/$1/%: %.cpp $(HEADER) $(CROSS)/c++
	@mkdir -p $$(@D)
	@echo "  $1: $$<"
	@$(CROSS)/c++ -target $1 $(CROSS_FLAGS) $(CROSS_STRICT) -I. $$< -o $$@

$(CROSS)/$1/tests/%.o: tests/%.cpp $(HEADER) $(CROSS)/c++
	@mkdir -p $$(@D)
	@echo "  $1: $$<"
	@$(CROSS)/c++ -target $1 $(CROSS_FLAGS) $(WARNINGS) -DANYIO_NET_SIM $$(cross_split.$1) -I. -Itests \
	  -I$(CROSS)/include -MMD -MP -c $$< -o $$@

$(CROSS)/$1/run_tests: $(CROSS_TESTS:%.cpp=$(CROSS)/$1/%.o)
	@$(CROSS)/c++ -target $1 $$^ -o $$@
endef
$(foreach t,$(CROSS_TARGETS),$(eval $(call cross_rules,$t)))

# musl and libc++; the program runs here, or by qemu. Linked in a step of its own: zig 0.11 crashes else.
CROSS_MUSL_MODES := plain embedded split-embedded
cross_musl_mode.plain := -O1
cross_musl_mode.embedded = $(MINIMAL_EMBEDDED)
cross_musl_mode.split-embedded = $(MINIMAL_EMBEDDED) -DANYIO_NET_SPLIT
cross_emulator.arm-linux-musleabihf := qemu-arm

define cross_musl_rules
cross-musl-all: $(CROSS_HEADER_MODES:%=$(CROSS)/$1/header-%.o) $(CROSS_MUSL_MODES:%=$(CROSS)/$1/self_test-%.ok)

$(CROSS)/$1/header-%.o: $(HEADER) $(CROSS)/c++
	@mkdir -p $$(@D)
	@$(CROSS)/c++ -target $1 $(CROSS_FLAGS) $(CROSS_STRICT) $$(cross_mode.$$*) -I. -c $(CROSS)/header.cpp -o $$@

$(CROSS)/$1/self_test-%.o: tests/minimal/self_test.cpp $(HEADER) $(CROSS)/c++
	@mkdir -p $$(@D)
	@echo "  $1: $$<, $$*"
	@$(CROSS)/c++ -target $1 $(CROSS_FLAGS) $(CROSS_STRICT) $$(cross_musl_mode.$$*) -I. -c $$< -o $$@

$(CROSS)/$1/definitions-%.o: $(HEADER) $(CROSS)/c++
	@mkdir -p $$(@D)
	@$(CROSS)/c++ -target $1 $(CROSS_FLAGS) $(CROSS_STRICT) $$(cross_musl_mode.$$*) -DANYIO_NET_IMPLEMENTATION \
	  -I. -c $(CROSS)/header.cpp -o $$@

$(CROSS)/$1/self_test-split-embedded: $(CROSS)/$1/definitions-split-embedded.o
$(CROSS_MUSL_MODES:%=$(CROSS)/$1/self_test-%): %: %.o
	@$(CROSS)/c++ -target $1 -static -s $$^ -o $$@ 2>$$@.log || { cat $$@.log; exit 1; }

$(CROSS)/$1/self_test-%.ok: $(CROSS)/$1/self_test-%
	@tools/cross/run_cross.sh $$< $(cross_emulator.$1)
	@touch $$@
endef
$(foreach t,$(MUSL_TARGETS),$(eval $(call cross_musl_rules,$t)))
-include $(foreach t,$(CROSS_TARGETS),$(CROSS_TESTS:%.cpp=$(CROSS)/$t/%.d))
