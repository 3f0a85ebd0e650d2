"""
`callsheet`, for operators: run the service, look after keys and tenants, order a video from a terminal.

Each family of commands has a file of its own, imported only when it is called, so that `--help` is quick.
"""

import sys
from importlib.metadata import version

from cyclopts import App

from app.cli.trouble import in_plain_words

app = App(
    name="callsheet",
    help="A self-hosted gateway for generative-video jobs: accepted is kept, paid once, priced to the cent.",
    version=lambda: version("callsheet"),
)
app.command(
    "app.cli.up:up",
    help="Start everything with one command; a Postgres and, without FAL_KEY, a simulator included.",
)
app.command("app.cli.processes:serve", help="Serve the HTTP API.")
app.command("app.cli.processes:work", help="Run the background loops: submit to fal, ask fal.")
app.command("app.cli.processes:migrate", help="Bring the database's tables to this version.")
app.command("app.cli.processes:simulate", help="Run fal in a box: same API, test-picture videos, no money spent.")
app.command("app.cli.verify:verify", help="Prove from the database that every promise holds.")
app.command("app.cli.config:config", help="Show every setting in force and where it came from.")
app.command("app.cli.audit:audit", help="Show who changed what.")
app.command("app.cli.models:models", help="List the models and their prices.")
app.command("app.cli.fal:fal", help="List the fal accounts: jobs at fal, cap, lock.")
app.command(keys := App(name="keys", help="Make, list, replace and revoke API keys."))
keys.command("app.cli.keys:create", help="Make a key and print it, this once.")
keys.command("app.cli.keys:show", name="list", help="List all keys.")
keys.command("app.cli.keys:rotate", help="Replace a key; the old one works for a while more.")
keys.command("app.cli.keys:revoke", help="Stop a key from working, for good.")
app.command(tenants := App(name="tenants", help="Make and list tenants, and put money into their accounts."))
tenants.command("app.cli.tenants:create", help="Make a tenant with an account of its own.")
tenants.command("app.cli.tenants:show", name="list", help="List all tenants with their balances.")
tenants.command("app.cli.tenants:deposit", help="Put money into a tenant's account.")
tenants.command("app.cli.tenants:limit", help="Say how many jobs of a tenant may be at fal at once.")
app.command(files := App(name="files", help="Look after files for inputs."))
files.command("app.cli.files:prune", help="Delete the files that were not used for long. A worker does so daily.")
app.command(jobs := App(name="jobs", help="Order videos, look at jobs, cancel them."))
jobs.command("app.cli.jobs:submit", help="Order a video, and follow it to its file and price with --watch.")
jobs.command("app.cli.jobs:show", help="Look at a job.")
jobs.command("app.cli.jobs:index", name="list", help="List jobs, newest first.")
jobs.command("app.cli.jobs:cancel", help="Cancel a job; what fal has already may still finish, and cost.")
jobs.command("app.cli.resolve:resolve", help="Say what became of a lost submit, where fal's word can't be had.")

app.command(incidents := App(name="incidents", help="What needs a person: list it, dismiss what can't heal."))
incidents.command("app.cli.incidents:show", name="list", help="List what needs a person.")
incidents.command("app.cli.incidents:dismiss", help="Close an incident that can't heal by itself.")


def main() -> None:
    """Run the command line; what a user can mend is told in one line, without a traceback."""
    with in_plain_words():
        sys.exit(app())
