"""The compiled module, which is optional; pyproject.toml has everything else.

Without a compiler or the kernel's headers, the Python loop does the same work (virtfs/fuse/loops.py).
"""

from setuptools import Extension, setup

setup(ext_modules=[Extension("virtfs.fuse.plainloop", ["virtfs/fuse/plainloop.pyx"], optional=True)])
