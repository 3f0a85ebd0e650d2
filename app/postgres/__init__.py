"""
A Postgres that comes with Callsheet, for whoever has none: started, guarded and stopped by one process.

Owns the binaries it finds, the data folder (cluster, log, lock) and the life of the server in it. Leans on
nothing else of Callsheet.

    with EmbeddedPostgres(Path(".callsheet/postgres")) as postgres:
        engine = create_async_engine(postgres.url)

The flow: hold the folder → find the binaries → make the cluster once → start → wait until it answers. The
server is a child of the process that started it and never outlives it, not even after `kill -9`.
"""

from app.postgres.binaries import PostgresError, PostgresMissing, find_bin_dir
from app.postgres.cluster import ClusterNotMade, WrongPostgresVersion
from app.postgres.folder import DataFolderInUse, DataFolderUnusable, running_url
from app.postgres.server import EmbeddedPostgres, PostgresFailed

__all__ = [
    "ClusterNotMade",
    "DataFolderInUse",
    "DataFolderUnusable",
    "EmbeddedPostgres",
    "PostgresError",
    "PostgresFailed",
    "PostgresMissing",
    "WrongPostgresVersion",
    "find_bin_dir",
    "running_url",
]
