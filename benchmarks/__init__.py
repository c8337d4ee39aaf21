"""What is measured, against what floor, as ratios: ``python -m benchmarks``."""
