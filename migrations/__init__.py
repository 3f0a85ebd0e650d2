"""The schema's history. `callsheet migrate` and `callsheet up` bring a database to its newest step."""
