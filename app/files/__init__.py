"""
What callers hand in: images, videos and sounds for a job's input.

`uploads` streams a file to storage, `lifting` does the same with data: URIs inside an order, `reaching` makes what an
input names reachable for fal, and `pruner` lets go of what nobody used for long. A file is named by an address of our
own, `callsheet://files/<id>`, which stays the same wherever the file is kept. Leans on media for storage and links,
and knows of jobs only their ids.
"""
