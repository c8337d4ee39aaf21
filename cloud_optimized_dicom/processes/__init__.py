"""Work in other processes.

- `pool`: processes that any thread may give work to, and of which each may die without harm to the others
- `worker`: what runs in them
"""
