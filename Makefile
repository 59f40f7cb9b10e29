# Targets install missing packages through tools/setup. `make help` lists them.
MOUNT = /mnt/virt
PREFIX = /usr/local
ARGS =
export MOUNT
# Three workers more than processors, since many tests only wait. The tests of a file share a mount, so one worker runs
# them all; conftest.py orders the files. Bytecode files save 0.3 s of compiling for each program that a test starts.
PYTEST = PYTHONDONTWRITEBYTECODE= .venv/bin/python -m pytest -n $$(($$(nproc) + 3)) --dist loadfile --no-loadscope-reorder

# The folders whose tests need no root, no device and no mount. tests/test_layers.py keeps the list complete.
PURE = channel files forward pure wire

.PHONY: run test test-pure check sweep crash fuzz soak attacks boot bench docs pictures dist deb install uninstall
.PHONY: clean help
run:
	@tools/setup run
	@tools/run

test:
	@tools/setup test
	$(PYTEST) $(ARGS)

test-pure:
	@tools/setup pure
	$(PYTEST) -n $$(nproc) --hypothesis-profile=quick -q $(PURE:%=tests/%) $(ARGS)

sweep:
	@tools/setup test
	cd tests && PYTHONPATH=..:. ../.venv/bin/python -m daemon.sweep --table $(ARGS)

crash:
	@tools/setup test
	cd tests && PYTHONPATH=..:. ../.venv/bin/python -m crash $(ARGS)

check:
	@tools/setup dev
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/python -m pytest -q tests/test_layers.py

# Without atheris (https://github.com/google/atheris), all inputs are made by plain mutation.
fuzz:
	@tools/setup test
	@.venv/bin/python -c 'import atheris' 2>/dev/null || .venv/bin/pip install -q -e '.[fuzz]' || true
	cd tests && PYTHONPATH=.:.. ../.venv/bin/python -m fuzz.run $(ARGS)

soak:
	@tools/setup test
	PYTHONPATH=tests:. .venv/bin/python -m soak.main $(ARGS)

attacks:
	@tools/setup test
	ATTACKS=8 PYTHONDONTWRITEBYTECODE= .venv/bin/python -m pytest -q -n0 -s -o faulthandler_timeout=0 tests/rights/test_memory.py $(ARGS)

# A virtual machine boots from the network over each way to an interface.
boot:
	@tools/setup test
	PYTHONDONTWRITEBYTECODE= .venv/bin/python -m pytest -q -n0 tests/examples/test_pxe.py tests/examples/boots.py $(ARGS)

bench:
	@tools/setup bench
	.venv/bin/python bench/run.py $(ARGS) --json build/bench.json
	.venv/bin/python bench/bulk.py $(ARGS) --json build/bench.json
	.venv/bin/python bench/descriptor.py $(ARGS) --json build/bench.json
	.venv/bin/python bench/traffic.py $(ARGS) --json build/bench.json
	.venv/bin/python bench/churn.py --pairs 5000 --json build/bench.json
	.venv/bin/python bench/fairness.py $(ARGS) --json build/bench.json
	.venv/bin/python bench/names.py $(ARGS) --json build/bench.json
	.venv/bin/python bench/scale.py $(ARGS) --json build/bench.json
	.venv/bin/python bench/latency.py $(ARGS) --json build/bench.json
	.venv/bin/python bench/hosts.py $(ARGS) --json build/bench.json

# The site of the documents, in build/site. Warnings, such as a link that leads nowhere, are errors.
docs:
	@tools/setup docs
	.venv/bin/python tools/pages.py
	@echo 'build/site/index.html'

# From real runs in network namespaces. Look at each picture before you commit it.
pictures:
	@tools/setup docs
	PYTHONPATH=tests:tools:. .venv/bin/python -m pictures $(ARGS)

# The source distribution and the wheel, in dist/. pip then installs each into a clean environment.
dist:
	@tools/setup test
	rm -f dist/*.whl dist/*.tar.gz
	.venv/bin/python -m build --no-isolation >/dev/null
	.venv/bin/python -m pytest -q -n0 tests/dist/everything.py
	@ls -l dist

# For the Debian on which it runs; debian/ is the recipe.
deb:
	@tools/setup test
	@tools/setup deb
	tools/deb

# In the environment, quotes and blanks in these need no care.
install uninstall: export PREFIX := $(PREFIX)
install uninstall: export DESTDIR := $(DESTDIR)
install:
	@tools/install --check
	@tools/setup run
	@tools/install

uninstall:
	@tools/install --remove

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f virtfs/*/*.c virtfs/*/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:
	@echo 'sudo make run            mount at $(MOUNT) (MOUNT=DIR); without root, a shell with a private virtfs'
	@echo 'sudo make test           all tests, in separate network namespaces (ARGS="-k frame -x"; -n0: one at a time)'
	@echo 'make test-pure           the tests that need no root, in 20 s: parsers, queues, tasks on a fake tap and kernel'
	@echo 'sudo make sweep          each call to the kernel fails in turn, with each errno (ARGS="create netns")'
	@echo 'sudo make crash          kill servers at every system call, and compare what remains (ARGS="--kills 100 --seed 7")'
	@echo 'make check               ruff, mypy --strict, and the imports between folders'
	@echo 'sudo make fuzz           a million random inputs to every parser, the channel and a mount (ARGS="--inputs 9000000")'
	@echo 'sudo make soak           10 minutes of users, faults and kills against a model (ARGS="--minutes 2 --seed 7")'
	@echo 'sudo make attacks        what one user can make the server hold: long attacks, and the peaks of its memory'
	@echo 'sudo make boot           QEMU boots by DHCP and TFTP over each way to an interface: half a minute'
	@echo 'sudo make bench          frames per second, compared with other programs (ARGS=--quick), and leaks'
	@echo 'make docs                the site of the documents, in build/site'
	@echo 'sudo make pictures       the pictures in doc/pictures, from real runs (ARGS="tour top"; ARGS=--measure: bench first)'
	@echo 'sudo make install        the command, mount.virtfs, man pages, completion, unit (PREFIX=/usr/local, DESTDIR=)'
	@echo 'sudo make uninstall      remove what `make install` installed'
	@echo 'sudo make dist           source distribution and wheel, in dist/, each tried in a clean environment'
	@echo 'sudo make deb            a package for this release of Debian, in dist/, checked with lintian and a mount'
	@echo 'make clean               remove .venv and the files that tools left in the checkout'
