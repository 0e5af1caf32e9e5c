from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="City",
            fields=[
                (
                    "id",
                    models.PositiveIntegerField(primary_key=True, serialize=False, verbose_name="GeoNames number"),
                ),
                ("name", models.CharField(max_length=100)),
                ("country_code", models.CharField(db_index=True, max_length=2)),
                ("latitude", models.FloatField()),
                ("longitude", models.FloatField()),
                ("population", models.PositiveIntegerField(db_index=True)),
                ("timezone", models.CharField(max_length=40)),
                (
                    "alternate_names",
                    models.TextField(
                        blank=True,
                        help_text="Separated by commas, as in the old days; AlternateName takes their place.",
                    ),
                ),
            ],
            options={"verbose_name_plural": "cities"},
        ),
    ]
