"""What people look at after training. Knows run directories only, not how they were made."""
