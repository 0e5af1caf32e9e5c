"""Datastore and Firestore: where their keys lie, and how their ranges are divided."""
