"""From files to batches: storage, solved datasets, the mixture and its loader."""
