"""Commands of the `edgeelad` program."""
