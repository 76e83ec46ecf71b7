"""Sweeps: families of runs, one YAML file each, and the command that trains them."""
