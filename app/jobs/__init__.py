"""
The heart: one video, from order to result.

`routes` takes an order, `dispatcher` tells fal, `receiver` hears from fal, `reconciler` asks fal. `lifecycle` moves
one job and its money along; `accepting`, `taking`, `submits` and `settling` do the same moves for a set of jobs in one
statement each, and leave to `lifecycle` what they don't know; `keeping` notes what became of their files. So whoever
brings the news, the outcome is the same. `doors` answers what comes most often, ahead of the framework. `decisions` has
what people decide in between, and `history` finds out what a submit became whose answer got lost.
"""
