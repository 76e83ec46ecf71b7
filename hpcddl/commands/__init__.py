"""The table of commands, and those that have no folder of their own, with what they need."""
