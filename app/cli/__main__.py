"""Lets `python -m app.cli` stand in for `callsheet`."""

from app.cli import main

main()
