#!/usr/bin/env python
"""The command line of the example project."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    os.environ.setdefault("EXAMPLE_LOCAL", "1")  # who types this is on their own machine; the Dockerfile says otherwise
    execute_from_command_line(sys.argv)
