"""The one way to bytes: local files, and remote ones by ranges, cached and tried again."""
