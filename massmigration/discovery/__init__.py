"""Finds the migrations of the installed apps: their files, their classes, their order, and references to them."""
