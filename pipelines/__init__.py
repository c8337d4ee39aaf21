"""Runnable Apache Beam pipelines: ``python -m pipelines.ingest --help``."""
