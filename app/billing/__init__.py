"""
Money: what a job will cost, what is held for it, and what it was charged.

`prices` turns a model's price rules into seconds and an amount; `ledger` moves amounts, and the statements of
`jobs.accepting` and `jobs.settling` do the same moves for sets of jobs; nothing else writes accounts. Everything
happens inside the caller's transaction, so a job and its money change together or not at all.
"""
