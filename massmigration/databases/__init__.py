"""What databases differ in; nothing outside asks which one it is."""
