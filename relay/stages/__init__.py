"""The stages of a turn: async functions with one job each."""
