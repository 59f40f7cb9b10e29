"""FUSE: mounting, the wire protocol, and the two planes that answer requests."""
