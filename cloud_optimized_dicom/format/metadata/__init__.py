"""metadata.json: parsing and writing it, the records in it, and changes to it.

Readers accept versions 1 and 2 of a record; writers write version 2.  What a reader does not know survives every
change, in place: a document is kept as the JSON it was, and the typed values are views of it.
"""
