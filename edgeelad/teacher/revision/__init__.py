"""The revision ladder: detect and correct the flaws in the student's reasoning."""
