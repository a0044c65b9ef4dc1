"""Launcher for a checkout: `python cli.py …` is `edgeelad …`. Not installed."""

from edgeelad.cli import main

if __name__ == "__main__":
    main()
