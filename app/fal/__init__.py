"""
fal's wire format, and the only place that knows it.

`client` asks and tells, `messages` types what comes back, `signature` checks who sent a webhook,
`storage` hands in files.
What leaves this package is in Callsheet's words: an Accepted, Refused or Lost submit, a Progress, a Report.
"""
