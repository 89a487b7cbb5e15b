# The documents, the reference and the plots as static pages, for the Makefile: MkDocs with its theme Material, from Debian
# or from PyPI. docs/mkdocs.yml has the settings, tools/make/site_pages.py lays out the pages.

MKDOCS ?= mkdocs
SITE := build/site

.PHONY: site
site: ## documents, reference and plots as static pages with a search, in build/site
	@tools/make/install_deps.sh site
	@$(PYTHON) tools/make/site_pages.py $(SITE)-pages
	@$(MKDOCS) build --quiet -f $(SITE)-pages/mkdocs.yml
	@echo "$(SITE)/index.html; the search needs a server: $(PYTHON) -m http.server -d $(SITE)"

.PHONY: check-site
check-site: site ## every page of the site in headless Chromium, wide and narrow: dead links, script errors, foreign hosts
	@$(PYTHON) tools/checks/check_site.py $(SITE)
