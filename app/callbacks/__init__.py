"""
Callbacks: what we tell callers, at least once, signed, and in an order that can be told.

Owns where a tenant wants to be called, what was to be told there and each try to tell it. Leans on leases and on the
guarded client. The flow: the transaction that moves a job also writes a Delivery (`outbox`); the `sender` leases it,
signs it, posts it and notes the answer.
"""
