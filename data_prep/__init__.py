"""Packs data sets, as other tools leave them, into hpcddl's HDF5 shards."""
