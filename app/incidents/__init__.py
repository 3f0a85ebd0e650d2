"""
Incidents: what needs a person, opened and closed by itself.

`kinds` says what there is to watch for, each as one query. `watcher` asks them all every few seconds and writes
what it saw into one table: trouble opens an incident once, keeps it fresh while it lasts, and closes it when it is
gone. `routes` and the page at /incidents show them; an operator may dismiss what can't heal by itself.
"""
