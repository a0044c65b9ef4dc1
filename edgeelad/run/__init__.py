"""A run folder's files: one record, one writer and one reader per kind of file."""
