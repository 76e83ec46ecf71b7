"""Commands of `hpcddl` that have no folder of their own; each file bears its command's name."""
