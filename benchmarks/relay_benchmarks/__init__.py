"""The benchmark suite behind `relay bench`."""
