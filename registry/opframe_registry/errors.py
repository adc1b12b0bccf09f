"""Mistakes that a person can mend. The command line prints them without a traceback and exits with 2."""


class OpframeError(Exception):
    """Base of every error whose message is written for the person who reads it."""


class ConfigError(OpframeError):
    """An experiment file, an override or a component's settings are not valid."""


class PluginError(OpframeError):
    """A component was asked for that no plugin provides, or that two provide."""


class DataError(OpframeError):
    """A dataset is missing, damaged or of the wrong shape; the message names file and index."""


class RunError(OpframeError):
    """A run folder or a checkpoint cannot be used, or training cannot go on."""
