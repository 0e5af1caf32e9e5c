"""One model for each type of key that document stores know; ``visits`` tells how often an operation saw a row.

None asks for an index: with one of its own a model would lose the connectors' indexes on all its other fields.
"""

from __future__ import annotations

import uuid

from django.db import models


class Row(models.Model):
    """Its keys are given by the database: random numbers on Datastore and Firestore."""

    name = models.CharField(max_length=200, default="")
    flag = models.BooleanField(default=False)
    visits = models.IntegerField(default=0)
    note = models.TextField(default="", blank=True)

    def __str__(self) -> str:
        return self.name


class Token(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    flag = models.BooleanField(default=False)
    visits = models.IntegerField(default=0)


class Word(models.Model):
    word = models.CharField(primary_key=True, max_length=200)
    flag = models.BooleanField(default=False)
    visits = models.IntegerField(default=0)

    def __str__(self) -> str:
        return self.word


class Number(models.Model):
    """Its keys are given by hand, so that they can lie close together."""

    id = models.BigIntegerField(primary_key=True)
    flag = models.BooleanField(default=False)
    visits = models.IntegerField(default=0)
