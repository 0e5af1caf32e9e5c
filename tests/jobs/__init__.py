"""Mass migrations for the tests of the commands; ``tests.jobs.settings`` makes them those of ``testapp``."""
