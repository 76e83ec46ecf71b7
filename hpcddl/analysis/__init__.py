"""Diagnostics of training: noise, gradients. They know models and data, but no strategies."""
