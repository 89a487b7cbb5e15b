# The modes of small systems, for the Makefile: needs its variables HEADER, CXX and CLANGXX. In each
# tests/minimal/self_test.cpp is compiled without warnings, linked and run, and prints `ok`.
#
# In the modes named split-*, the definitions are a unit of their own.

MINIMAL := build/minimal
MINIMAL_FLAGS := -std=c++20 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -I.
MINIMAL_EMBEDDED := -Os -fno-exceptions -fno-rtti -fno-threadsafe-statics -DANYIO_NET_NO_THREADS
MINIMAL_MODES := plain no-exceptions no-rtti no-threads statics size lto split-plain split-lto \
  embedded split-embedded split-embedded-lto
minimal.plain := -O0 -pthread
minimal.no-exceptions := -O0 -fno-exceptions -pthread
minimal.no-rtti := -O0 -fno-rtti -pthread
minimal.no-threads := -O0 -DANYIO_NET_NO_THREADS
minimal.statics := -O1 -fno-threadsafe-statics -pthread
minimal.size := -Os -DNDEBUG -pthread
minimal.lto := -O2 -flto=auto -pthread
minimal.split-plain := -O0 -pthread
minimal.split-lto := -O2 -flto=auto -pthread
minimal.embedded := $(MINIMAL_EMBEDDED)
minimal.split-embedded := $(MINIMAL_EMBEDDED) -ffunction-sections -fdata-sections -Wl,--gc-sections
minimal.split-embedded-lto := $(MINIMAL_EMBEDDED) -flto=auto -fvisibility=hidden
minimal_compiler.gcc := $(CXX)
minimal_compiler.clang := $(CLANGXX)
# Clang warns about linker flags when it only compiles.
minimal_compile = $(filter-out -Wl$(comma)%,$(minimal.$1)) $(if $(filter split-%,$1),-DANYIO_NET_SPLIT)
comma := ,

# Most modes by one of the compilers, but for those that only combine others or that the tests have; check-long has all of
# them by both.
MINIMAL_CI := $(addprefix gcc/,no-exceptions no-threads split-embedded-lto) \
  $(addprefix clang/,no-rtti statics size embedded)

.PHONY: check-minimal check-minimal-all
check-minimal: $(MINIMAL_CI:%=$(MINIMAL)/%.ok) ## small builds of many kinds run: no exceptions, no threads, -Os, LTO
	@$(foreach m,$(MINIMAL_CI),printf 'record: {"small_build": "%s"}\n' $m; )
check-minimal-all: $(foreach c,gcc clang,$(MINIMAL_MODES:%=$(MINIMAL)/$c/%.ok))

define minimal_rules
$(MINIMAL)/$1/%.o: tests/minimal/self_test.cpp $(HEADER) tools/make/minimal.mk
	@mkdir -p $$(@D)
	@echo "  $1: $$<, $$*"
	@$(minimal_compiler.$1) $(MINIMAL_FLAGS) $$(call minimal_compile,$$*) -c $$< -o $$@

$(MINIMAL)/$1/%.definitions.o: $(HEADER) tools/make/minimal.mk
	@mkdir -p $$(@D)
	@echo '#include "$(HEADER)"' | $(minimal_compiler.$1) $(MINIMAL_FLAGS) $$(call minimal_compile,$$*) \
	  -DANYIO_NET_IMPLEMENTATION -c -x c++ - -o $$@

$(patsubst %,$(MINIMAL)/$1/%,$(filter split-%,$(MINIMAL_MODES))): %: %.definitions.o
$(MINIMAL_MODES:%=$(MINIMAL)/$1/%): %: %.o
	@$(minimal_compiler.$1) -std=c++20 -Werror $$(minimal.$$(@F)) $$^ -o $$@

$(MINIMAL)/$1/%.ok: $(MINIMAL)/$1/%
	@said=$$$$(timeout 60 $$<) || { echo "$$<: ended with $$$$?: $$$$said"; exit 1; }; \
	  [ "$$$$said" = ok ] || { echo "$$<: $$$$said"; exit 1; }
	@touch $$@
endef
$(foreach c,gcc clang,$(eval $(call minimal_rules,$c)))
