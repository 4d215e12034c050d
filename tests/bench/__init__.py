"""Side-by-side measurements against the peers, in one run: `make bench`. No test is decided by a timing."""
