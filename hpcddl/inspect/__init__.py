"""`hpcddl data`: what a shard set holds, whether it is whole, and how it looks."""
