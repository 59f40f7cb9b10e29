"""What each file of the tree answers: one small class a kind of file, methods named after the system call."""
