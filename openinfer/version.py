"""The version, on its own so that no module has to import the root for it."""

__version__ = "0.1.0"
