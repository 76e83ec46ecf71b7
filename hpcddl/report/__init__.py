"""Tables, pictures and pages about runs. Reads run directories; starts no training."""
