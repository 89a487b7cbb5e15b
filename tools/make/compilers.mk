# The header under each compiler and standard, and a strong list of warnings, for the Makefile: needs its
# variables HEADER, CXX, CLANGXX, CLANG19XX, PROCESSORS, the programs and the TLS macros.
#
# A configuration is named compiler-standard, and -noexc, -nothreads or a level like -O1 after it. In each the
# header is compiled with all definitions, both TLS engines and simulation, below a program's globals; programs
# instantiate the templates.

STRICT := build/strict
strict_compiler.gcc := $(CXX)
strict_compiler.clang := $(CLANGXX)
strict_compiler.clang19 := $(CLANG19XX)
strict_compiler.libcxx := $(CLANG19XX) -stdlib=libc++
strict_standards.gcc := c++20 c++23
strict_standards.clang := c++20 c++2b
strict_standards.clang19 := c++20 c++23 gnu++26
strict_standards.libcxx := c++20 c++23 gnu++26
strict_option.noexc := -fno-exceptions -fno-rtti
strict_option.nothreads := -DANYIO_NET_NO_THREADS
strict_option.O1 := -O1
strict_option.O3 := -O3
strict_option.Og := -Og

# Not in the list for g++:
#   -Wuseless-cast, -Wsign-promo     casts that 32 bits, musl or macOS want
#   -Wzero-as-null-pointer-constant  g++ 12 says it of every coroutine; clang looks after it
#   -Wswitch-enum, -Wswitch-default  want both a default and all the rest
#   -Weffc++, -Wpadded, -Wnoexcept, -Wsuggest-*   taste
STRICT_GCC := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wold-style-cast -Wduplicated-cond \
  -Wduplicated-branches -Wlogical-op -Wnull-dereference -Wcast-align=strict -Wcast-qual -Wnon-virtual-dtor \
  -Woverloaded-virtual -Wdouble-promotion -Wfloat-equal -Wformat=2 -Wimplicit-fallthrough=5 -Wextra-semi \
  -Wsuggest-override -Wmissing-declarations -Wredundant-decls -Wundef -Wunused-const-variable=2 \
  -Wdeprecated-copy-dtor -Wmismatched-tags -Wredundant-tags -Wcatch-value=3 -Wcomma-subscript -Wvolatile -Wvla
# Everything less:
#   c++98-compat, pre-c++…-compat, c++20-compat   it is C++20
#   padded, weak-vtables, exit-time-destructors   what a header and its objects are like
#   unsafe-buffer-usage          sockets take a pointer and a size
#   switch-enum, switch-default  as above
#   ctad-maybe-unsupported       std::lock_guard and the like
#   used-but-marked-unused, cast-function-type-strict, disabled-macro-expansion   OpenSSL's and glibc's macros
# clang 14 calls a defaulted <=> a zero for a null pointer, and does not know all of these names.
STRICT_CLANG := -Weverything $(addprefix -Wno-,c++98-compat c++98-compat-pedantic pre-c++14-compat pre-c++17-compat \
  pre-c++20-compat c++20-compat padded weak-vtables exit-time-destructors switch-enum ctad-maybe-unsupported \
  used-but-marked-unused disabled-macro-expansion)
strict_warnings.gcc := $(STRICT_GCC)
strict_warnings.clang := $(STRICT_CLANG) -Wno-zero-as-null-pointer-constant
strict_warnings.clang19 := $(STRICT_CLANG) $(addprefix -Wno-,unsafe-buffer-usage switch-default cast-function-type-strict)
strict_warnings.libcxx := $(strict_warnings.clang19)
# clang warns alike at all levels.
strict_output.gcc := -c -o /dev/null
strict_output.clang := -fsyntax-only
strict_output.clang19 := -fsyntax-only
strict_output.libcxx := -fsyntax-only
# Cross compilers are g++ too, and have no TLS library.
define strict_processor
strict_compiler.$1 := $(compiler.$1) -Wno-psabi
strict_warnings.$1 := $(STRICT_GCC)
strict_output.$1 := $(strict_output.gcc)
endef
$(foreach p,$(PROCESSORS),$(eval $(call strict_processor,$p)))
strict_engines = $(if $(filter $(PROCESSORS),$(call strict_word,1,$1)),,$(TLS_MACROS))

strict_word = $(word $1,$(subst -, ,$2))
strict_flags = -std=$(call strict_word,2,$1) -O2 \
  $(foreach o,$(wordlist 3,9,$(subst -, ,$1)),$(strict_option.$o)) -Werror $(strict_warnings.$(call strict_word,1,$1)) \
  -I. $(strict_output.$(call strict_word,1,$1))
strict_probe := -include version -fsyntax-only -x c++ /dev/null
# Runs a compiler, $1, with all of a configuration, $2, and the rest, $3; one that is not here says so.
strict_run = if $1 $(strict_probe) >/dev/null 2>&1; \
  then $1 $(call strict_flags,$2) $3 && touch $@; \
  else echo "skipped: $(@:$(STRICT)/%.ok=%): cannot run $1"; fi
strict = $(call strict_run,$(strict_compiler.$(call strict_word,1,$1)),$1,$2)

.PRECIOUS: $(STRICT)/%.hpp.ok
$(STRICT)/%/$(HEADER).ok: $(HEADER) tools/make/compilers.mk
	@mkdir -p $(@D)
	@{ echo 'extern int bytes, error, options, port, value;'; echo '#include "$(HEADER)"'; } >$(@:.ok=.cpp)
	@$(call strict,$*,-DANYIO_NET_SPLIT -DANYIO_NET_IMPLEMENTATION $(call strict_engines,$*) $(SIM_MACROS) $(@:.ok=.cpp))

# Programs may leave out what a library may not: declarations of all functions, and they return with a comma.
STRICT_PROGRAM := -Wno-missing-declarations
strict_engine.gcc := $(macro.mbedtls)
strict_engine.clang := $(macro.openssl)
strict_engine.clang19 := $(macro.openssl)
strict_engine.libcxx := $(macro.mbedtls)
strict_program.clang := -Wno-missing-prototypes -Wno-missing-variable-declarations -Wno-comma
strict_program.clang19 := $(strict_program.clang)
strict_program.libcxx := $(strict_program.clang)
STRICT_SOURCES := $(EXAMPLES) $(PEERS) $(TLS_SOURCES)
define strict_rule
$(STRICT)/$1/%.cpp.ok: %.cpp $(EXAMPLE_SUPPORT) $(HEADER) tools/make/compilers.mk
	@mkdir -p $$(@D)
	@$$(call strict,$1,$(STRICT_PROGRAM) $(strict_program.$(call strict_word,1,$1)) \
	  $$(if $$(filter $(TLS_SOURCES),$$<),$(strict_engine.$(call strict_word,1,$1))) $$<)
endef
strict_header = $(1:%=$(STRICT)/%/$(HEADER).ok)
strict_programs = $(foreach c,$1,$(STRICT_SOURCES:%=$(STRICT)/$c/%.ok))

# CI compiles the header by the oldest and by the newest compilers, with both standard libraries, and the programs
# by the newest, joined into a few units; in `make compilers` each is by itself.
STRICT_CI := gcc-c++20 gcc-c++23-noexc-O1 gcc-c++20-noexc-nothreads-O1 clang-c++20 clang-c++2b-noexc clang-c++20-nothreads \
  clang19-c++23-noexc clang19-gnu++26 libcxx-c++20-noexc libcxx-gnu++26
STRICT_CI_PROGRAMS := libcxx-gnu++26

STRICT_ALL := $(foreach c,gcc clang clang19 libcxx,$(strict_standards.$c:%=$c-%))
STRICT_LONG := $(STRICT_ALL) $(STRICT_ALL:%=%-noexc) $(STRICT_ALL:%=%-nothreads) \
  $(foreach o,O1 O3 Og,$(foreach s,$(strict_standards.gcc),gcc-$s-$o gcc-$s-noexc-$o))
$(foreach c,$(sort $(STRICT_ALL) $(STRICT_ALL:%=%-noexc) gcc-c++20-O1),$(eval $(call strict_rule,$c)))

# In a unit main is a function like any other, which would have to return a value. For compilers that check the syntax
# only: g++ would write to one file for all.
$(STRICT)/%/programs.ok: $(STRICT_SOURCES) $(EXAMPLE_SUPPORT) $(HEADER) tools/make/compilers.mk tools/make/join_tests.py
	@mkdir -p $(@D)
	@units=$$($(PYTHON) tools/make/join_tests.py $(@D)/units 3000 $(STRICT_SOURCES)) || exit; \
	  $(call strict,$*,$(STRICT_PROGRAM) $(strict_program.$(call strict_word,1,$*)) -Wno-return-type -DANYIO_NET_SPLIT \
	    -Iexamples -Itests/peers $(strict_engine.$(call strict_word,1,$*)) $$units)

# Facts for docs/proved.md: the configurations, $1, that could be compiled here.
strict_record = $(foreach c,$1,[ ! -e $(STRICT)/$c/$(HEADER).ok ] || printf 'record: {"compiled": "%s", "compiler": "%s"}\n' $c \
  "$$($(strict_compiler.$(call strict_word,1,$c)) --version | head -n 1)"; )

.PHONY: check-compilers
check-compilers: $(call strict_header,$(STRICT_CI)) $(STRICT_CI_PROGRAMS:%=$(STRICT)/%/programs.ok) ## no warnings: g++, two clangs, two standard libraries, C++20 to 26
	@$(call strict_record,$(STRICT_CI))

.PHONY: compilers-strict
compilers-strict: $(call strict_header,$(STRICT_LONG)) $(call strict_programs,$(STRICT_ALL) gcc-c++20-O1)
compilers-strict: $(STRICT_ALL:%=$(STRICT)/%-noexc/tests/minimal/self_test.cpp.ok) $(PARTS:src/%=$(STRICT)/parts/%.ok)
	@$(call strict_record,$(STRICT_LONG))

# Each part includes what it uses, with libc++ too.
$(STRICT)/parts/%.ok: src/% $(PARTS)
	@mkdir -p $(@D)
	@echo '#include "$*"' >$(@:.ok=.cpp)
	@$(call strict_run,$(strict_compiler.libcxx),libcxx-c++20,-Wno-everything -Isrc -DANYIO_NET_SPLIT $(TLS_MACROS) $(SIM_MACROS) $(@:.ok=.cpp))

.PHONY: compilers
compilers: ## all compilers, standards and kinds of build, and all tests with libc++ and later standards: an hour
	@tools/make/install_deps.sh compilers
	@$(MAKE) compilers-run

# Apart, since make expands a recipe before its first line has installed anything.
.PHONY: compilers-run
compilers-run:
	@$(if $(libcxx_runs),,echo "skipped: tests with libc++: cannot run $(strict_compiler.libcxx)")
	@$(RUN) --record build/record/compilers.json $(call check,every configuration without a warning,compilers-strict) \
	  $(if $(libcxx_runs),$(call suite,libcxx) $(call suite,libcxx-26)) $(call suite,gcc-23)
libcxx_runs = $(shell $(strict_compiler.libcxx) $(strict_probe) >/dev/null 2>&1 && echo yes)
