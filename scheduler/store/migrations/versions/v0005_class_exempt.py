"""Renames the key `is_lifted` of attempts and admissions to `is_class_exempt`."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    # Only these kinds have the key. No value contains its text, because quotes inside values are escaped.
    for table, kinds in (("attempts", None), ("checkpoint_rows", "attempt"), ("journal", "GangAdmitted")):
        where = "" if kinds is None else f" WHERE kind = '{kinds}'"
        op.execute(f"""UPDATE {table} SET body = replace(body, '"is_lifted":', '"is_class_exempt":'){where}""")
