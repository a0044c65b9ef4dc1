"""Prompts sent to the teacher, and the parsing of its replies."""
