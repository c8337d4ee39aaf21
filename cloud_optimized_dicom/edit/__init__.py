"""Mode "e": stored instances as local files that may be rewritten, and what becomes of a series by that."""
