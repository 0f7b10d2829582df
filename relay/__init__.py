"""Relay: real-time spoken dialogue on one's own machine."""

__version__ = "0.1.0"
