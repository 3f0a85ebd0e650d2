"""
Proof of the promises, read off the database: what must hold for every job, and which ones break it.

`money`, `life` and `waiting` look at our own rows, `paid` holds fal's books beside them. A check is a row: a
name, a promise, and the condition in SQL that breaks it. `verifier` asks them all in one snapshot, so that a
running system is seen as it was at one moment. Nothing here writes.
"""
