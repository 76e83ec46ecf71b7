"""`hpcddl data`: what a shard set holds, whether it is undamaged, and how it looks."""
