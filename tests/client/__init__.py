"""Tests of the Python API, on a mount and against servers that the tests simulate."""
