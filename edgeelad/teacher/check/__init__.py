"""Measure how well a teacher finds and corrects errors."""
