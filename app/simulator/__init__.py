"""
fal in a box: fal's HTTP surface with money, faults and the clock under your control.

Owns fal's side of the wire: queue, direct runs, storage, CDN, JWKS and Platform API on one port, real MP4
files of the ordered length, signed webhooks with fal's retries, and the books of every request it accepted.
Leans on nothing else in Callsheet, so that a misreading of fal in the client can't be repeated here.

The one flow: `doors` tells by host and path what a call is for → `routes/queue` takes the order → `queue`
books it, lets it wait and run → `outcomes` says how it ends, `clips` makes the video, `files` keeps it →
`webhooks` tells the caller. What goes wrong on the way is in `script` (asked for) and `faults` (by chance).
`/simulator` shows and changes everything.
"""
