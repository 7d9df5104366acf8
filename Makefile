# Two commands for a fresh machine: `make demo` runs the main job, `make test` passes the tests.
# Each sets up its own environment in .venv first; versions come from constraints.txt.

PYTHON ?= python3
VENV ?= .venv

.PHONY: demo test quick lint lint-web docs locales clean

demo: $(VENV)/.demo
	$(VENV)/bin/vdit demo

# Two workers, the slowest folders first. glibc keeps the memory it has had: giving it back, and getting it anew, took a
# quarter of the time of the demo model's tests.
test: export MALLOC_MMAP_MAX_ = 0
test: export MALLOC_TRIM_THRESHOLD_ = 4294967296
test: $(VENV)/.test
	$(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# What can break while one edits, in two minutes: nothing that samples a video, nothing of ComfyUI.
quick: $(VENV)/.test
	$(VENV)/bin/python -m pytest tests/unit tests/web tests/test_layout.py tests/test_translations.py --numprocesses 2 --dist loadfile -m "not slow and not gpu"

# mypy sees the nodes as ComfyUI does: as a part of a package, whatever the name of its folder.
lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	folder=$$(mktemp -d) && ln -s '$(CURDIR)' $$folder/pack && cd $$folder && \
		'$(abspath $(VENV))/bin/mypy' -p pack.nodes --config-file '$(CURDIR)/pyproject.toml' \
		--cache-dir '$(CURDIR)/.mypy_cache/nodes' && rm -r $$folder
	$(MAKE) --no-print-directory lint-web

# Only this needs npm: neither the pack nor anything else here does, so lint goes on without it.
lint-web:
	@if ! command -v npm >/dev/null; then echo "lint-web: npm is not installed, so eslint did not check web/"; \
	elif [ ! -x node_modules/.bin/eslint ] && ! npm ci --ignore-scripts --no-audit --no-fund --silent; then \
		echo "lint-web: npm could not install eslint, so it did not check web/"; \
	else npm run --silent lint; fi

# Builds the documentation into site/; a warning is an error (with --quiet mkdocs would count none). The variable silences
# a notice of the theme.
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(VENV)/.docs
	$(VENV)/bin/python -m mkdocs build --strict

# Writes the English texts of the nodes anew; a ComfyUI with this pack must run at port 8188. Then says what the other
# languages lack.
locales: $(VENV)/.test
	$(VENV)/bin/python locales/generate.py
	$(VENV)/bin/python locales/translations.py

$(VENV)/.%: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --constraint constraints.txt --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) node_modules out build site *.egg-info
