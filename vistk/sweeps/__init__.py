"""Sweeps: one table from many runs, each of which is a child process."""
