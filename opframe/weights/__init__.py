"""Weights that outlive a run: folders of them, published checkpoints, transfer into another network."""
