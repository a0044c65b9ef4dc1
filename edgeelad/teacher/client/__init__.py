"""The HTTP client of a paid teacher: transport, rate limits, outcomes, batches."""
