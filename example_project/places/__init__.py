"""A small site about the cities of the world."""
