"""The ledger: every exchange with the teacher, paid once."""
