"""The models: streaming layers with explicit state, loading, export. Imports nothing of `relay`."""
