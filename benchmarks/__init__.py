"""Measurements of the engine beside other implementations, run from here as `python -m benchmarks.side_by_side`."""
