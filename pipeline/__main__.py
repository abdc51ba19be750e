"""The command ``pipeline``, also as ``python -m pipeline``: interruptible from its first import on."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being imported is exit code 130 too."""
    try:
        from pipeline import cli  # noqa: PLC0415 (takes most of a second)

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
