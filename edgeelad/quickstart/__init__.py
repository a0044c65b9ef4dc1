"""The embedded default of `edgeelad distill`: word problems, an exact solver served as a teacher, a base student."""
