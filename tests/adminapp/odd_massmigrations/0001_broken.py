"""A file that does not import."""

raise RuntimeError("this file is <broken>")
