"""How weights travel: averages over all learners, and exchanges between neighbours."""
