"""The lock of a series: its record, taking it over, keeping it, letting it go."""
