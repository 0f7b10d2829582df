"""Clients of the server: library, microphone."""
