# Fuzzing, for the Makefile: needs its variables CXX, CLANGXX, HEADER, PARTS and TLS macros.

FUZZ_SECONDS ?= 8
FUZZ_LONG_SECONDS ?= 120
FUZZ_TARGETS ?= $(patsubst fuzz/%.cpp,%,$(sort $(wildcard fuzz/*.cpp)))
FUZZ_SUPPORT := $(wildcard fuzz/support/*.hpp) $(EXAMPLE_SUPPORT)

# Each kind of build has its own directory, and a main or an engine.
FUZZ_SANITIZERS := -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
fuzz_compiler.fuzz := $(CLANGXX)
fuzz_flags.fuzz := -O1 $(FUZZ_SANITIZERS) -fno-sanitize=function -fsanitize=fuzzer-no-link
fuzz_engine.fuzz := -fsanitize=fuzzer
fuzz_compiler.fuzz-gcc := $(CXX)
fuzz_flags.fuzz-gcc := -O0 $(FUZZ_SANITIZERS)
fuzz_engine.fuzz-gcc := build/fuzz-gcc/standalone_main.o
fuzz_compiler.fuzz-clang := $(CLANGXX)
fuzz_flags.fuzz-clang := -O0 $(FUZZ_SANITIZERS) -fno-sanitize=function
fuzz_engine.fuzz-clang := build/fuzz-clang/standalone_main.o
fuzz_compiler.fuzz-afl := afl-clang-fast++
fuzz_flags.fuzz-afl := -O1 -g1
fuzz_engine.fuzz-afl := build/fuzz-afl/standalone_main.o
# By parts, so that coverage is reported for each.
fuzz_compiler.fuzz-coverage := $(CLANGXX)
fuzz_flags.fuzz-coverage := -O1 -g1 -fprofile-instr-generate -fcoverage-mapping -Ibuild/include
fuzz_engine.fuzz-coverage := build/fuzz-coverage/standalone_main.o
# Other processors, without mbedTLS.
define fuzz_processor
fuzz_compiler.fuzz-$1 := $(compiler.$1)
fuzz_flags.fuzz-$1 := $(flags.$1)
fuzz_engine.fuzz-$1 := build/fuzz-$1/standalone_main.o
fuzz_emulate.fuzz-$1 := $(emulate.$1)
endef
$(foreach p,$(PROCESSORS),$(eval $(call fuzz_processor,$p)))
FUZZ_WAYS := fuzz fuzz-gcc fuzz-clang fuzz-afl fuzz-coverage $(PROCESSORS:%=fuzz-%)
fuzz_tls = $(if $(fuzz_emulate.$1),,$($2.mbedtls))

fuzz_compile = $(fuzz_compiler.$1) -std=c++20 -pthread $(WARNINGS) $(fuzz_flags.$1) -DANYIO_NET_SIM \
  -DANYIO_NET_SPLIT $(call fuzz_tls,$1,macro) -I. -Ifuzz $(CPPFLAGS) $(CXXFLAGS)

define fuzz_rules
build/$1/%.o: fuzz/%.cpp $(HEADER) $(FUZZ_SUPPORT)
	@mkdir -p $$(@D)
	@echo "  $1: $$<"
	@$$(call fuzz_compile,$1) -c $$< -o $$@
build/$1/%.o: fuzz/support/%.cpp $(HEADER)
	@mkdir -p $$(@D)
	@echo "  $1: $$<"
	@$$(call fuzz_compile,$1) -c $$< -o $$@
$(FUZZ_TARGETS:%=build/$1/%): build/$1/%: build/$1/%.o build/$1/implementation.o $(filter %.o,$(fuzz_engine.$1))
	@$$(call fuzz_compile,$1) $$(filter %.o,$$^) $(filter -%,$(fuzz_engine.$1)) $$(LDFLAGS) $(call fuzz_tls,$1,libs) $$(LDLIBS) -o $$@
	@$(if $(fuzz_emulate.$1),$(fuzz_emulate.$1) $$@)
endef
$(foreach w,$(FUZZ_WAYS),$(eval $(call fuzz_rules,$w)))
$(patsubst %,build/fuzz-coverage/%.o,$(FUZZ_TARGETS) implementation standalone_main): build/include/$(HEADER)

.PHONY: fuzz
fuzz: $(FUZZ_TARGETS:%=build/fuzz/%) ## run all fuzz targets for FUZZ_SECONDS each, two to three minutes in all
	@fuzz/run.sh build/fuzz $(FUZZ_SECONDS) $(FUZZ_TARGETS)

.PHONY: fuzz-long
fuzz-long: $(FUZZ_TARGETS:%=build/fuzz/%) ## run all fuzz targets for FUZZ_LONG_SECONDS each
	@fuzz/run.sh build/fuzz $(FUZZ_LONG_SECONDS) $(FUZZ_TARGETS)

.PHONY: fuzz-replay
fuzz-replay: fuzz-replay-gcc fuzz-replay-clang ## replay all corpora under sanitizers, by both compilers

.PHONY: fuzz-replay-gcc fuzz-replay-clang
fuzz-replay-gcc fuzz-replay-clang: fuzz-replay-%: $(FUZZ_TARGETS:%=build/fuzz-\%/%)
	@fuzz/replay.sh build/fuzz-$* $(FUZZ_TARGETS)

FUZZ_PLAIN_TARGETS := $(filter-out tls_%,$(FUZZ_TARGETS))
.PHONY: $(PROCESSORS:%=fuzz-replay-%)
$(PROCESSORS:%=fuzz-replay-%): fuzz-replay-%: $(FUZZ_PLAIN_TARGETS:%=build/fuzz-\%/%)
	@fuzz/replay.sh build/fuzz-$* $(FUZZ_PLAIN_TARGETS)

.PHONY: fuzz-afl
fuzz-afl: ## a short run of one target by AFL++, if it is installed
	@if ! command -v afl-fuzz >/dev/null; then echo "fuzz-afl: AFL++ is not installed"; exit 0; fi; \
	$(MAKE) build/fuzz-afl/api_sequence && rm -rf build/fuzz-afl/findings && \
	AFL_SKIP_CPUFREQ=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_NO_UI=1 AFL_NO_AFFINITY=1 \
	  afl-fuzz -V $(FUZZ_SECONDS) -i fuzz/corpus/api_sequence -o build/fuzz-afl/findings \
	  -- build/fuzz-afl/api_sequence >build/fuzz-afl/log 2>&1 || { tail -n 30 build/fuzz-afl/log; exit 1; }; \
	sed -n 's/^\(execs_per_sec\|execs_done\|saved_crashes\) *: /  \1 /p' build/fuzz-afl/findings/default/fuzzer_stats; \
	grep -q '^saved_crashes *: 0' build/fuzz-afl/findings/default/fuzzer_stats

.PHONY: fuzz-coverage
fuzz-coverage: $(FUZZ_TARGETS:%=build/fuzz-coverage/%) ## coverage of src/ by the corpora, those of `make fuzz` included
	@rm -f build/fuzz-coverage/*.profraw
	@for t in $(filter-out protocol_bug,$(FUZZ_TARGETS)); do \
	  LLVM_PROFILE_FILE=build/fuzz-coverage/$$t.profraw build/fuzz-coverage/$$t \
	    $$(ls -d fuzz/corpus/$$t build/fuzz/corpus/$$t 2>/dev/null) || exit 1; \
	done
	@llvm-profdata merge -o build/fuzz-coverage/all.profdata build/fuzz-coverage/*.profraw
	@llvm-cov report -instr-profile build/fuzz-coverage/all.profdata \
	  $(patsubst %,-object build/fuzz-coverage/%,$(filter-out protocol_bug,$(FUZZ_TARGETS))) \
	  --ignore-filename-regex='fuzz/|/usr/' 
