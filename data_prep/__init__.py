"""Offline: corpora as other tools leave them, packed into hpcddl's HDF5 shards."""
