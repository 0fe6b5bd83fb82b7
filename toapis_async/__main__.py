"""`python -m toapis_async`: the command line."""

from toapis_async.cli import main

main(prog_name="toapis")
