"""Kaldi experiments, read without Kaldi and packed into shards."""
