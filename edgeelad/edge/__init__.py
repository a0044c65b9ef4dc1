"""Run and serve a package on the device where it is needed; no torch, no transformers."""
