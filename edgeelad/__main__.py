"""`python -m edgeelad` is `edgeelad`."""

from edgeelad.cli import main

if __name__ == "__main__":
    main()
