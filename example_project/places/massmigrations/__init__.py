"""The mass migrations: they change the data."""
