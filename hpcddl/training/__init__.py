"""The training loop and what runs inside it; needs no run directory."""
