"""Analysis of trained networks: loss landscapes, lines between runs, curvature."""
