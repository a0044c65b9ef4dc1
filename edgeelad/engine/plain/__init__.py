"""The fallback generator: left-padded batches on any graph with standard input names."""
