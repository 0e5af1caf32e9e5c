"""Measurements, one module for each question; README.md says what came out."""
