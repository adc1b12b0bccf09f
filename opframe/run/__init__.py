"""One run, from its experiment to its report."""
