"""Jobs of a Slurm cluster: what sbatch is told, what was submitted, and how far it is."""
