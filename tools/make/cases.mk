# The programs of tests/cases, for the Makefile: needs its variables HEADER, CXX and CLANGXX. Each is built with
# g++, in check-long with clang too, and run. The definitions of the library are a unit of their own, compiled once, and so
# is what all programs include first.

CASES := $(basename $(notdir $(wildcard tests/cases/*.cpp)))
CASES_BUILD := build/cases
CASES_FLAGS := -std=c++20 -pthread -O0 -g1 -Wall -Wextra -Werror -DANYIO_NET_SPLIT -I. -Itests
cases_compiler.gcc := $(CXX)
cases_compiler.clang := $(CLANGXX)

.PHONY: check-cases check-cases-all
check-cases: $(CASES:%=$(CASES_BUILD)/gcc/%.ok) ## small programs, one for each fault seen in other libraries
	@printf 'record: {"cases": %d, "cases_skipped": %d}\n' $(words $(CASES)) "$$(cat $^ | grep -c skipped)"
check-cases-all: $(foreach c,gcc clang,$(CASES:%=$(CASES_BUILD)/$c/%.ok))

define cases_rules
.PRECIOUS: $(CASES_BUILD)/$1/%
$(CASES_BUILD)/$1/definitions.o: $(HEADER) tools/make/cases.mk
	@mkdir -p $$(@D)
	@echo "  $1: $(HEADER), the definitions for tests/cases"
	@echo '#include "$(HEADER)"' | $(cases_compiler.$1) $(CASES_FLAGS) -DANYIO_NET_IMPLEMENTATION -c -x c++ - -o $$@

$(CASES_BUILD)/$1/case.hpp.gch: tests/cases/case.hpp tests/support/faces.hpp $(HEADER) tools/make/cases.mk
	@mkdir -p $$(@D)
	@$(cases_compiler.$1) $(CASES_FLAGS) -w -x c++-header $$< -o $$@

$(CASES_BUILD)/$1/%: tests/cases/%.cpp $(CASES_BUILD)/$1/case.hpp.gch $(CASES_BUILD)/$1/definitions.o
	@echo "  $1: $$<"
	@$(cases_compiler.$1) $(CASES_FLAGS) -include $(CASES_BUILD)/$1/case.hpp $$< $(CASES_BUILD)/$1/definitions.o -o $$@

$(CASES_BUILD)/$1/%.ok: $(CASES_BUILD)/$1/%
	@timeout 120 $$< >$$<.out 2>&1; status=$$$$?; \
	  if [ $$$$status = 77 ]; then echo "skipped: tests/cases/$$*.cpp: this machine cannot show it" | tee $$@; exit; \
	  elif [ $$$$status != 0 ]; then cat $$<.out; echo "$$<: ended with $$$$status"; exit 1; fi; : >$$@
endef
$(foreach c,gcc clang,$(eval $(call cases_rules,$c)))
