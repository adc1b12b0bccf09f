"""Time, memory and counted work of a run, beside what the machine could do."""
