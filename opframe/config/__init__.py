"""From TOML files to frozen settings and components, and back."""
