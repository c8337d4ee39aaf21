"""Shipped test helpers: a store conformance suite, a strict Google Cloud Storage server, synthetic datasets."""
