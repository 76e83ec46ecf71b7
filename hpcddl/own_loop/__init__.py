"""What a training loop of one's own stands on: the ranks, a learner, the order of its data."""

import os

from hpcddl.cluster import mpi_start

# Before any module of this folder imports mpi4py, which starts MPI.
mpi_start.prepare(os.environ)
