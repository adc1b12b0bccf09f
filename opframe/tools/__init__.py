"""What looks at data and prepares them, without training."""
