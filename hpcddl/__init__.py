"""Large-batch training on many GPUs: synchronous, decentralised and local SGD side by side."""

__version__ = "0.1.0"
