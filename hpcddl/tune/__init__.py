"""The papers' searches, for any recipe: each algorithm is compared at its own best setting."""
