"""
The files around a job: what a caller hands in, and the videos that come back.

Owns how files are kept and read. Leans on the catalog and fal below it, and knows nothing of jobs or money:
`rescuer` copies results to `storage`, `routes` hands the copies out by signed links, and `mp4` says how long a
video is; billing decides what that costs.
"""
