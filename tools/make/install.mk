# Installing the header and the module, for CMake and pkg-config too, for the Makefile: needs its variables HEADER and
# MODULE. They are used as they are, so installing needs neither Python nor a compiler. CMakeLists.txt installs the same files.
#
#   make install PREFIX=/usr/local DESTDIR=
#   make dist
#
# The layout below the prefix is fixed: the CMake config finds the header by it, also when the prefix is moved.

PREFIX ?= /usr/local
INSTALL ?= install
CMAKE_TARGETS := cmake/anyio_net-config.cmake cmake/anyio_net-targets.cmake
TEMPLATES := $(wildcard cmake/*.in)
PC_FILES := $(notdir $(patsubst %.in,%,$(filter %.pc.in,$(TEMPLATES))))
VERSION_NUMBER = $(shell sed -n 's/^#define ANYIO_NET_VERSION_$1 //p' $(HEADER))
VERSION = $(call VERSION_NUMBER,MAJOR).$(call VERSION_NUMBER,MINOR).$(call VERSION_NUMBER,PATCH)
# The path is written into files that are read elsewhere.
ABSOLUTE_PREFIX = $(if $(filter /%,$(PREFIX)),$(PREFIX),$(error PREFIX is an absolute path, not '$(PREFIX)'))
ROOT_OF_INSTALL = $(DESTDIR)$(ABSOLUTE_PREFIX)
INSTALLED = include/$(HEADER) include/$(MODULE) $(PC_FILES:%=share/pkgconfig/%) $(CMAKE_TARGETS:cmake/%=share/cmake/anyio_net/%) \
  share/cmake/anyio_net/anyio_net-config-version.cmake share/doc/anyio_net/LICENSE

.PHONY: install
install: ## the header, for CMake and pkg-config too, into PREFIX (/usr/local), below DESTDIR
	@$(INSTALL) -d $(foreach d,include share/pkgconfig share/cmake/anyio_net share/doc/anyio_net,"$(ROOT_OF_INSTALL)/$d")
	@$(INSTALL) -m 644 $(HEADER) $(MODULE) "$(ROOT_OF_INSTALL)/include/"
	@$(INSTALL) -m 644 $(CMAKE_TARGETS) "$(ROOT_OF_INSTALL)/share/cmake/anyio_net/"
	@$(INSTALL) -m 644 LICENSE "$(ROOT_OF_INSTALL)/share/doc/anyio_net/"
	@set -e; fill() { \
	  sed -e 's|@VERSION@|$(VERSION)|' -e 's|@PREFIX@|$(ABSOLUTE_PREFIX)|' "cmake/$$1.in" >"$(ROOT_OF_INSTALL)/$$2/$$1"; \
	  chmod 644 "$(ROOT_OF_INSTALL)/$$2/$$1"; \
	}; \
	fill anyio_net-config-version.cmake share/cmake/anyio_net; \
	for file in $(PC_FILES); do fill "$$file" share/pkgconfig; done
	@echo "anyio_net $(VERSION) is installed in $(ROOT_OF_INSTALL)"

.PHONY: uninstall
uninstall: ## remove what `make install` with the same PREFIX and DESTDIR has installed
	@rm -f $(foreach f,$(INSTALLED),"$(ROOT_OF_INSTALL)/$f")
	@rmdir "$(ROOT_OF_INSTALL)/share/cmake/anyio_net" "$(ROOT_OF_INSTALL)/share/doc/anyio_net" 2>/dev/null || true

.PHONY: dist
dist: $(HEADER) $(MODULE) ## the archive of a release, build/dist/anyio_net-VERSION.tar.gz, with checksums
	@$(PYTHON) tools/make/dist.py

.PHONY: version
version: ## print the version
	@echo $(VERSION)
