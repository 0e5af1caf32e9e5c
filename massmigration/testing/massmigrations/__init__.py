"""What the conformance suite runs. A visit is an event, so that no table has to be made for it."""
