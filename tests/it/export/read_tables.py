"""Prints what DuckDB and Polars find in exported files: one JSON object for each file and reader.

Arguments: the files. Times are printed as `convoke export` writes them into text.
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


def told(file, reader, types, rows):
    rows = [{name: plain(value) for name, value in row.items()} for row in rows]
    print(json.dumps({"file": file, "reader": reader, "types": types, "rows": rows}))


def by_duckdb(file, function):
    connection = duckdb.connect()
    found = connection.execute(f"SELECT * FROM {function}", [file])
    names = [column[0] for column in found.description]
    rows = [dict(zip(names, row)) for row in found.fetchall()]
    types = connection.execute(f"DESCRIBE SELECT * FROM {function}", [file]).fetchall()
    told(file, "duckdb", {column[0]: column[1] for column in types}, rows)


for file in sys.argv[1:]:
    if file.endswith(".parquet"):
        by_duckdb(file, "read_parquet(?)")
        frame = polars.read_parquet(file)
        told(file, "polars", {name: str(kind) for name, kind in frame.schema.items()}, frame.to_dicts())
    elif file.endswith(".csv"):
        by_duckdb(file, "read_csv(?, header = true, all_varchar = true, strict_mode = true)")
    else:
        by_duckdb(file, "read_json(?, format = 'newline_delimited', maximum_depth = 1)")
