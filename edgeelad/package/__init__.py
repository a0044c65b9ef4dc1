"""Write, open and verify packages: the folders that ship to devices."""
