"""Evaluation on held-out trajectories: roll-outs, errors, tables and figures."""
