"""Prints what DuckDB, Polars, pandas and openpyxl find in exported files: one JSON object for each file and reader.

Arguments: the files. Times are printed as `convoke export` writes them into text.
"""

import datetime
import json
import re
import sys

import duckdb
import openpyxl
import pandas
import polars


def plain(value):
    if isinstance(value, datetime.datetime):
        # A spreadsheet's have no zone.
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


def by_openpyxl(file):
    book = openpyxl.load_workbook(file)
    sheet, columns = book.worksheets
    names = [cell.value for cell in sheet[1]]

    # So LibreOffice writes a truth value.
    truth = {"=TRUE()": True, "=FALSE()": False}

    def held(cell):
        if cell.data_type == "f" and cell.value in truth:
            return truth[cell.value]
        assert cell.data_type != "f", "a formula"
        if isinstance(cell.value, str):
            return re.sub("_x([0-9A-F]{4})_", lambda code: chr(int(code[1], 16)), cell.value)
        return cell.value

    rows = [{name: held(cell) for name, cell in zip(names, row)} for row in sheet.iter_rows(min_row=2)]
    explained = [[cell.value for cell in row] for row in columns.iter_rows()]
    assert explained[0] == ["column", "holds", "meaning"] and [row[0] for row in explained[1:]] == names, explained
    assert all(row[2] for row in explained), explained
    told(file, "openpyxl", {row[0]: row[1] for row in explained[1:]}, rows)


for file in sys.argv[1:]:
    if file.endswith(".parquet"):
        by_duckdb(file, "read_parquet(?)")
        frame = polars.read_parquet(file)
        told(file, "polars", {name: str(kind) for name, kind in frame.schema.items()}, frame.to_dicts())
    elif file.endswith(".xlsx"):
        by_openpyxl(file)
    elif file.endswith(".csv"):
        by_duckdb(file, "read_csv(?, header = true, all_varchar = true, strict_mode = true)")
        frame = pandas.read_csv(file, dtype=object, keep_default_na=False, na_values=[""])
        frame = frame.astype(object).where(frame.notna(), None)
        told(file, "pandas", {name: "VARCHAR" for name in frame.columns}, frame.to_dict("records"))
    else:
        by_duckdb(file, "read_json(?, format = 'newline_delimited', maximum_depth = 1)")
