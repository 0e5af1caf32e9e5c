"""Django's migrations: they change the schema."""
