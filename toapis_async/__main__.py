"""`toapis` and `python -m toapis_async`: the command line."""

import sys


def main() -> None:
    """Run the command line. Ctrl-C is told in a line also while modules are still loaded, which takes a moment."""
    try:
        from toapis_async.cli import main as command  # noqa: PLC0415

        command(prog_name="toapis")
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
