"""The pytest plugin: fixtures for tests that need a network. doc/testing.md describes them.

The package imports only client and core. pytest loads only the module plugin, which imports the other modules when a
test uses them.

    plugin      the fixtures, and the captures for failed tests
    server      a mount that ends with the process that started it
    netns       a network namespace, and programs in it
    lab         hosts with addresses, and cables between them
    needs       the capabilities, programs and devices that the fixtures need
    captures    writes the last frames of each interface to files
"""
