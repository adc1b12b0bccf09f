"""What dataset plugins are made of: arrays in stores of several formats, splits, solved data."""
