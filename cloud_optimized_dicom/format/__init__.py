"""The bytes of a series: tar members, offset tables, headers, metadata.json.  Pure: no I/O but on streams handed in."""
