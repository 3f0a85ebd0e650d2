"""
The files around a job: what a caller hands in, and the videos that come back.

Owns how files are kept and read. Leans on the catalog and fal below it, and knows nothing of jobs or money:
`mp4` says how long a video is, and billing decides what that costs.
"""
