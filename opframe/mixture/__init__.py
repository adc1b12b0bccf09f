"""Many datasets as one: sources, their order, batches, and what brings them to one grid and one scale."""
