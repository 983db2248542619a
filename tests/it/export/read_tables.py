"""Prints what DuckDB and Polars find in an exported file: one JSON object for each reader.

Argument: the file. Times are printed as `convoke export` writes them into text.
"""

import datetime
import json
import sys

import duckdb
import polars


def plain(value):
    if isinstance(value, datetime.datetime):
        utc = value.astimezone(datetime.timezone.utc)
        return utc.strftime("%Y-%m-%dT%H:%M:%S.") + f"{utc.microsecond // 1000:03}Z"
    return value


def told(reader, types, rows):
    rows = [{name: plain(value) for name, value in row.items()} for row in rows]
    print(json.dumps({"reader": reader, "types": types, "rows": rows}))


def by_duckdb(function):
    connection = duckdb.connect(config={"TimeZone": "UTC"})
    found = connection.execute(f"SELECT * FROM {function}", [sys.argv[1]])
    names = [column[0] for column in found.description]
    rows = [dict(zip(names, row)) for row in found.fetchall()]
    types = connection.execute(f"DESCRIBE SELECT * FROM {function}", [sys.argv[1]]).fetchall()
    told("duckdb", {column[0]: column[1] for column in types}, rows)


if sys.argv[1].endswith(".parquet"):
    by_duckdb("read_parquet(?)")
    frame = polars.read_parquet(sys.argv[1])
    told("polars", {name: str(kind) for name, kind in frame.schema.items()}, frame.to_dicts())
elif sys.argv[1].endswith(".csv"):
    by_duckdb("read_csv(?, header = true, all_varchar = true, strict_mode = true)")
else:
    by_duckdb("read_json(?, format = 'newline_delimited', maximum_depth = 1, convert_strings_to_integers = false)")
