"""
Who calls us, and what they may do: tenants, their keys and browser tokens, and the audit log.

A key is shown once, at its making; only its hash is kept. `auth` turns the Authorization header of a request into
a `Caller`: the tenant it acts for, what it may do, and how a browser token narrows that. `known` remembers callers for
a moment and counts their requests; `audit` notes what people change.
"""
