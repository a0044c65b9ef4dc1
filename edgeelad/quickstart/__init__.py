"""The quickstart of `edgeelad distill`: word problems, an exact solver served as a teacher, and a base student."""
