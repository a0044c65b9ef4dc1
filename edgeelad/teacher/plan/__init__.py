"""Decide how each question is taught for the least money (`teacher.mode = "auto"`)."""
