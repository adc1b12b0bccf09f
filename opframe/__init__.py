"""opframe: pre-training of neural operators from plugins and a TOML file."""

from importlib.metadata import version

__version__ = version("opframe")
