"""The benchmark suite: `python -m benchmarks --help`, and README.md for the method."""
