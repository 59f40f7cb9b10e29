# sudo make run, make test: both install what is missing (tools/setup). `make help` lists the rest.
MOUNT = /mnt/virt
ARGS =
export MOUNT
# Many tests wait while others compute: one worker more than cores. A file's tests share its mount; conftest.py orders
# the files. Without bytecode files each program that a test executes would compile its modules, 0.3 s.
PYTEST = PYTHONDONTWRITEBYTECODE= .venv/bin/python -m pytest -n $$(($$(nproc) + 1)) --dist loadfile --no-loadscope-reorder

.PHONY: run test check bench clean help
run:
	@tools/setup run
	@tools/run

test:
	@tools/setup test
	$(PYTEST) $(ARGS)

check:
	@tools/setup dev
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/python -m pytest -q tests/test_layers.py

bench:
	@tools/setup bench
	.venv/bin/python bench/run.py $(ARGS)
	.venv/bin/python bench/traffic.py $(ARGS)
	.venv/bin/python bench/churn.py --pairs 5000

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:
	@echo 'sudo make run            mount at $(MOUNT) (MOUNT=DIR); without root, a shell with a virtfs of its own'
	@echo 'sudo make test           all tests, in network namespaces of their own (ARGS="-k frame -x", -n0: one by one)'
	@echo 'make check               ruff, mypy --strict, and which folder imports which'
	@echo 'sudo make bench          frames a second, beside other ways to do it (ARGS=--quick), and leaks'
	@echo 'make clean               remove .venv and what tools left in the checkout'
