"""Workers that are threads of one process: their queues, their settings and their migrations."""
