"""
The heart: one video, from order to result.

`routes` takes an order, `lifecycle` is the only writer of a job's status and moves its money along,
`dispatcher` tells fal, `receiver` hears from fal, `reconciler` asks fal. All three end in the same
lifecycle functions, so whoever brings the news, the outcome is the same. `decisions` has what people decide
in between, and `history` finds out what a submit became whose answer got lost.
"""
