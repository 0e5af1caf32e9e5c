"""One model for every type of key; the counter ``visits`` tells how often an operation saw a row."""

from __future__ import annotations

import uuid

from django.db import models


class City(models.Model):
    name = models.CharField(max_length=200)
    slug = models.CharField(max_length=200, default="", blank=True)
    flag = models.BooleanField(default=False)
    visits = models.IntegerField(default=0)
    note = models.TextField(default="", blank=True)

    def __str__(self) -> str:
        return self.name


class Tag(models.Model):
    """Several of one city, so that a join over them repeats the city."""

    city = models.ForeignKey(City, on_delete=models.CASCADE, related_name="tags")
    word = models.CharField(max_length=100)
    visits = models.IntegerField(default=0)

    def __str__(self) -> str:
        return self.word


class Profile(models.Model):
    city = models.OneToOneField(City, on_delete=models.CASCADE, primary_key=True, related_name="profile")
    text = models.CharField(max_length=200, default="")
    visits = models.IntegerField(default=0)


class Parent(models.Model):
    title = models.CharField(max_length=200, default="")
    visits = models.IntegerField(default=0)


class Child(Parent):
    """Its key is a reference to its parent's row, and its fields lie in two tables."""

    detail = models.CharField(max_length=200, default="")
    child_visits = models.IntegerField(default=0)


class SparseInt(models.Model):
    """Keys are given by hand: far apart, zero, negative."""

    id = models.BigIntegerField(primary_key=True)
    text = models.CharField(max_length=200, default="")
    visits = models.IntegerField(default=0)


class UuidRow(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    text = models.CharField(max_length=200, default="")
    visits = models.IntegerField(default=0)


class TextRow(models.Model):
    id = models.CharField(primary_key=True, max_length=200)
    text = models.CharField(max_length=200, default="")
    visits = models.IntegerField(default=0)


class CompositeRow(models.Model):
    pk = models.CompositePrimaryKey("tenant", "number")
    tenant = models.CharField(max_length=50)
    number = models.IntegerField()
    text = models.CharField(max_length=200, default="")
    visits = models.IntegerField(default=0)


class DecimalRow(models.Model):
    id = models.DecimalField(primary_key=True, max_digits=20, decimal_places=6)
    text = models.CharField(max_length=200, default="")
    visits = models.IntegerField(default=0)


class MomentRow(models.Model):
    id = models.DateTimeField(primary_key=True)
    text = models.CharField(max_length=200, default="")
    visits = models.IntegerField(default=0)


class BinaryRow(models.Model):
    id = models.BinaryField(primary_key=True, max_length=100)
    text = models.CharField(max_length=200, default="")
    visits = models.IntegerField(default=0)


class FloatRow(models.Model):
    id = models.FloatField(primary_key=True)
    text = models.CharField(max_length=200, default="")
    visits = models.IntegerField(default=0)


class JsonRow(models.Model):
    data = models.JSONField(default=dict)
    visits = models.IntegerField(default=0)


class AuditLog(models.Model):
    """What operations wrote down; a row too many is a visit too many."""

    message = models.CharField(max_length=200)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.message
