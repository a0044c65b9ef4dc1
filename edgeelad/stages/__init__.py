"""The stages of a run, one file each, named as in `loop`; `run` holds what they share.

A stage reads the run folder, calls one part of edgeelad, and writes its own files there. If they are there already it
returns at once, so a killed run resumes. Its result depends on the configuration, the seed and earlier files alone.
"""
