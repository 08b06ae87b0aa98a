"""Files, processes and signals of the machine."""
