"""The paid teacher: its client, its ledger and budget, and the revision of the student's explanations."""
