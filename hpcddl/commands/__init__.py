"""The table of commands, and the commands that have no folder of their own."""
