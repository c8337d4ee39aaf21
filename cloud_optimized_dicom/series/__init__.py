"""One series: reading it, changing it in a transaction, committing, recovering, verifying."""
