"""The Python API; its names are in `edgeelad` itself."""
