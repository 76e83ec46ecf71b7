"""A run and its directory: set-up, checkpoints, resume, metrics, locks."""
