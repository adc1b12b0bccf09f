"""Building blocks that backbones share; a plugin may use them."""
