"""A site as it is hosted: gunicorn serves it, a queue delivers to it, and a person presses its buttons."""
