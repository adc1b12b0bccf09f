"""How fast an experiment runs on this machine, and the measuring itself, which the project's benchmarks use too."""
