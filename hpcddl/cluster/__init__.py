"""Where this process runs: its ranks, cores, launcher and MPI, and emulated links between nodes."""
