"""From files to series: sources, the plan (new, same, conflict, error), and its execution."""
