"""The files of the tree: one small class per kind of file, with methods named after system calls."""
