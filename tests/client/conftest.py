"""The client against a real server on a real port, with models that cost nothing."""

from tests.server.conftest import serving

__all__ = ["serving"]
