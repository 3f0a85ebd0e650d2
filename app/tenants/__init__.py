"""
Who calls us: tenants and their API keys.

A key is shown once, at its making; only its hash is kept. `auth.CurrentCaller` turns the
Authorization header of a request into the tenant it acts for and what it may do.
"""
