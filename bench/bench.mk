# Measuring, for the Makefile: needs its variables CXX, CLANGXX, HEADER, WARNINGS and the TLS libraries'.
# BENCH_FLAGS goes to bench/run.py: make bench BENCH_FLAGS="--only echo-tcp-64 --rounds 3"

BENCH := build/bench
BENCH_COMPILE = $(CXX) -std=c++20 -O2 -pthread $(WARNINGS) -I. $(CPPFLAGS) $(CXXFLAGS)
BENCH_SUPPORT := $(wildcard bench/servers/*.hpp) bench/bench.mk

# Programs: a source, and how it is compiled and linked.
bench_source.anyio_callback := anyio_callback
bench_source.anyio_coroutine := anyio_coroutine
bench_source.asio_callback := asio_callback
bench_source.asio_coroutine := asio_coroutine
bench_source.libuv := libuv
bench_libs.libuv := -luv
bench_source.libevent := libevent
bench_libs.libevent := -levent
bench_source.epoll := epoll
# TLS is in programs of its own, so that the others link nothing that they do not use.
define bench_tls
bench_source.anyio_$1_$2 := anyio_$1
bench_flags.anyio_$1_$2 := $(macro.$2)
bench_libs.anyio_$1_$2 := $(libs.$2)
endef
$(foreach e,$(ENGINES),$(foreach f,callback coroutine,$(eval $(call bench_tls,$f,$e))))
bench_source.asio_callback_tls := asio_callback
bench_flags.asio_callback_tls := -DBENCH_TLS
bench_libs.asio_callback_tls := -lssl -lcrypto
bench_source.asio_coroutine_tls := asio_coroutine
bench_flags.asio_coroutine_tls := -DBENCH_TLS
bench_libs.asio_coroutine_tls := -lssl -lcrypto
bench_source.libevent_tls := libevent
bench_flags.libevent_tls := -DBENCH_TLS
bench_libs.libevent_tls := -levent_openssl -levent -lssl -lcrypto
bench_source.epoll_tls := epoll_tls
bench_libs.epoll_tls := -lssl -lcrypto

BENCH_SERVERS := $(patsubst bench_source.%,%,$(filter bench_source.%,$(.VARIABLES)))
BENCH_PROGRAMS := $(BENCH_SERVERS:%=$(BENCH)/%) $(BENCH)/load $(BENCH)/malloc_count.so
# What a connection takes differs between compilers.
BENCH_CLANG := $(if $(shell command -v $(CLANGXX) 2>/dev/null),$(BENCH)/anyio_callback_clang $(BENCH)/anyio_coroutine_clang)

define bench_rule
$(BENCH)/$1: bench/servers/$(bench_source.$1).cpp $(BENCH_SUPPORT) $(if $(filter anyio_%,$1),$(HEADER))
	@mkdir -p $$(@D)
	@echo "  bench: $1"
	@$$(BENCH_COMPILE) $(bench_flags.$1) $$< $$(LDFLAGS) $(bench_libs.$1) $$(LDLIBS) -o $$@
endef
$(foreach s,$(BENCH_SERVERS),$(eval $(call bench_rule,$s)))

$(BENCH)/%_clang: bench/servers/%.cpp $(BENCH_SUPPORT) $(HEADER)
	@mkdir -p $(@D)
	@echo "  bench: $*, $(CLANGXX)"
	@$(CLANGXX) -std=c++20 -O2 -pthread $(WARNINGS) -I. $(CPPFLAGS) $(CXXFLAGS) $< $(LDFLAGS) $(LDLIBS) -o $@

$(BENCH)/load: bench/load.cpp bench/bench.mk
	@mkdir -p $(@D)
	@echo "  bench: load"
	@$(BENCH_COMPILE) $< $(LDFLAGS) -lssl -lcrypto $(LDLIBS) -o $@

BENCH_MICRO := $(patsubst bench/%.cpp,$(BENCH)/%.o,$(wildcard bench/micro*.cpp))
$(BENCH_MICRO): $(BENCH)/%.o: bench/%.cpp bench/micro.hpp bench/bench.mk $(HEADER)
	@mkdir -p $(@D)
	@echo "  bench: $*"
	@$(BENCH_COMPILE) -c $< -o $@

$(BENCH)/micro: $(BENCH_MICRO)
	@$(BENCH_COMPILE) $^ $(LDFLAGS) -lbenchmark -luv $(LDLIBS) -o $@

$(BENCH)/malloc_count.so: bench/malloc_count.c bench/bench.mk
	@mkdir -p $(@D)
	@$(CC) -O2 -Wall -Wextra -shared -fPIC $(CPPFLAGS) $(CFLAGS) $< $(LDFLAGS) -o $@

$(BENCH)/relay: bench/relay.cpp bench/bench.mk $(HEADER)
	@mkdir -p $(@D)
	@echo "  bench: relay"
	@$(BENCH_COMPILE) $< $(LDFLAGS) $(LDLIBS) -o $@

.PHONY: bench-relay
bench-relay: $(BENCH)/relay ## processor time of anyio::relay beside splice by hand and socat: two minutes
	@$(PYTHON) bench/relay.py $(BENCH)/relay $(BENCH_FLAGS)

.PHONY: bench-programs
bench-programs: $(BENCH_PROGRAMS) $(BENCH)/micro $(BENCH_CLANG) ## build what `make bench` runs

.PHONY: bench
bench: ## measure everything beside the peers: half an hour; tables and plots go to bench/results
	@tools/make/install_deps.sh bench
	@$(MAKE) --silent bench-programs
	@CXX="$(CXX)" $(PYTHON) bench/run.py $(BENCH_FLAGS)

.PHONY: bench-quick
bench-quick: ## some of it, a minute once it is built; prints tables
	@tools/make/install_deps.sh bench
	@$(MAKE) --silent $(BENCH_PROGRAMS)
	@CXX="$(CXX)" $(PYTHON) bench/run.py --quick $(BENCH_FLAGS)

FORMATTED += $(wildcard bench/*.cpp bench/servers/*.cpp bench/servers/*.hpp bench/minimal/*.cpp)
