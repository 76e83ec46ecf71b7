"""Figures and tables of the papers, each run and reported by one command."""
