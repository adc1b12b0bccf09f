"""The command line: parsing and printing, one module for each group of commands."""
