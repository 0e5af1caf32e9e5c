"""What an author subclasses: declarations only, no machinery."""
