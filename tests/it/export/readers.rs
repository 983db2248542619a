//! Programs that we did not write read what was exported.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use serde_json::{Map, Value, json};

use super::{TABLES, export, filled, read};
use crate::{
    log_contract::fixture::Backend,
    support::{
        docs,
        sign::{NOW, millis},
        tools,
    },
    tables::as_json::Seen,
};

/// What a reader found in a file.
pub struct Found {
    file: PathBuf,
    reader: String,
    types: BTreeMap<String, String>,
    pub rows: Vec<Value>,
}

pub fn found(paths: &[PathBuf]) -> Vec<Found> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/export/read_tables.py");
    // In a zone before UTC, the end of time is in the year 10000, which Python does not know.
    let output = tools::output_of(Command::new(tools::table_readers()).arg(script).args(paths).env("TZ", "UTC"));
    let read = |line: &str| {
        let found: Value = serde_json::from_str(line).expect("JSON");
        let types = serde_json::from_value(found["types"].clone()).expect("types");
        let rows = serde_json::from_value(found["rows"].clone()).expect("rows");
        let file = PathBuf::from(found["file"].as_str().expect("a path"));
        Found { file, reader: found["reader"].as_str().expect("a name").to_owned(), types, rows }
    };
    output.lines().map(read).collect()
}

/// The same rows in the four formats; where they are.
async fn exported(backend: &Backend, table: &str) -> [PathBuf; 4] {
    exported_as(backend, table, ["ndjson", "csv", "parquet", "xlsx"]).await
}

async fn exported_as<const N: usize>(backend: &Backend, table: &str, extensions: [&str; N]) -> [PathBuf; N] {
    let mut paths = Vec::new();
    for extension in extensions {
        let path = backend.folder.path().join(format!("{table}.{extension}"));
        let done = export(backend, &[table, "--output", path.to_str().expect("text")]).await;
        assert_eq!((done.code(), &*done.stdout), (0, ""), "{done:?}");
        assert!(
            done.stderr.starts_with("exported ") && done.stderr.contains(&format!(" rows of {table}, ")),
            "{done:?}"
        );
        paths.push(path);
    }
    paths.try_into().expect("as many as extensions")
}

/// As text: what is null is empty, and an object is as it came.
fn as_text(row: &Value, verbatim: Option<&str>) -> Map<String, Value> {
    let text = |(name, value): (&String, &Value)| {
        let text = match value {
            Value::Null => Value::Null,
            Value::String(text) => json!(text),
            Value::Object(_) => json!(verbatim.expect("an object is eventInfo")),
            Value::Number(number) if number.as_f64().is_some_and(|it| it.fract() == 0.0) => {
                json!(number.to_string().trim_end_matches(".0"))
            }
            other => json!(other.to_string()),
        };
        (name.clone(), text)
    };
    row.as_object().expect("an object").iter().map(text).collect()
}

fn sorted(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_cached_key(ToString::to_string);
    rows
}

pub async fn every_table_in_every_format_is_what_the_database_holds(backend: Backend) {
    let log = filled(&backend).await;
    let seen = Seen::of(&backend).await;
    let infos: Vec<String> = log
        .read(convoke_core::id::Seq::START, 10_000)
        .await
        .expect("events")
        .into_iter()
        .map(|row| row.event_info.expect("nothing was forgotten"))
        .collect();
    let mut files = Vec::new();
    for table in TABLES {
        files.extend(exported(&backend, table).await);
    }
    let found = found(&files);
    let of = |file: &PathBuf| found.iter().filter(|found| found.file == *file).collect::<Vec<_>>();
    for (table, files) in TABLES.iter().copied().zip(files.chunks(4)) {
        let [ndjson, csv, parquet, xlsx] = files else { panic!("four formats") };
        let rows = read(ndjson);
        // Against the database itself.
        match table {
            "events" => {
                let mut in_order = rows.clone();
                in_order.sort_by_key(|row| row["seq"].as_i64());
                assert_eq!(rows.len(), infos.len());
                for (row, info) in in_order.iter().zip(&infos) {
                    assert_eq!(row["event_info"], serde_json::from_str::<Value>(info).expect("JSON"));
                }
                let text = fs::read_to_string(ndjson).expect("it is there");
                assert!(text.contains(r#""large":123456789012345678901234567890"#), "numbers are as they came");
                assert!(rows.is_sorted_by_key(|row| row["event_id"].as_str().unwrap_or_default().to_owned()));
                let (first, last) = (&rows[0], &rows[rows.len() - 1]);
                assert_eq!(
                    (&first["event"], &first["occurred_at"]),
                    (&json!("odd"), &json!("2015-01-01T00:00:00.000Z"))
                );
                assert_eq!(last["occurred_at"], *millis(NOW + 86_400_000).to_string());
            }
            "meetings" => {
                let enriched = [
                    "subject",
                    "scheduled_start_at",
                    "scheduled_end_at",
                    "host",
                    "host_user_uuid",
                    "corp_id",
                    "conference_type",
                    "webinar",
                    "virtual_room",
                ];
                let mut bare = rows.clone();
                for row in &mut bare {
                    let row = row.as_object_mut().expect("an object");
                    assert!(enriched.iter().all(|name| row.remove(*name) == Some(Value::Null)));
                }
                assert_eq!(sorted(bare), seen.meetings);
            }
            "attendance" => {
                let mut pushed = rows.clone();
                for row in &mut pushed {
                    let row = row.as_object_mut().expect("an object");
                    let filled = ["device_type", "media_type", "department", "leave_reason"];
                    assert!(filled.iter().all(|name| row.remove(*name) == Some(Value::Null)));
                }
                assert_eq!(sorted(floats(pushed)), sorted(floats(seen.attendance.clone())));
            }
            _ => assert_eq!(sorted(rows.clone()), seen.recordings),
        }
        assert!(!rows.is_empty());
        // Against what others make of the files.
        let verbatim = |row: &Value| {
            let seq = row["seq"].as_i64()?;
            let place = rows.iter().filter(|other| other["seq"].as_i64() < Some(seq)).count();
            infos.get(place).map(String::as_str)
        };
        for found in of(parquet).into_iter().chain(of(xlsx)) {
            for (column, kind) in &found.types {
                let expected = expected_type(column, &found.reader);
                assert_eq!(kind, expected, "{table}.{column} by {}", found.reader);
            }
            let expected = rows.iter().map(|row| {
                let mut row = row.clone();
                if row["event_info"].is_object() {
                    row["event_info"] = json!(verbatim(&row));
                }
                row
            });
            assert_eq!(floats(found.rows.clone()), floats(expected.collect()), "{table} by {}", found.reader);
        }
        for found in of(csv) {
            let expected: Vec<Value> = rows.iter().map(|row| Value::Object(as_text(row, verbatim(row)))).collect();
            assert_eq!(found.rows, expected, "{table}.csv by {}", found.reader);
        }
        assert_eq!(of(ndjson)[0].rows.len(), rows.len(), "{table}.ndjson");
    }
}

/// With all whole floating-point numbers as such: JSON does not tell them from integers.
fn floats(mut rows: Vec<Value>) -> Vec<Value> {
    for row in &mut rows {
        for name in ["duration_s", "size_mb"] {
            if let Some(number) = row.get(name).and_then(Value::as_f64) {
                row[name] = json!(number);
            }
        }
    }
    rows
}

fn expected_type(column: &str, reader: &str) -> &'static str {
    let numbers = [
        "seq",
        "deliveries",
        "modifications",
        "stays",
        "participants",
        "peak_participants",
        "recordings",
        "length_s",
        "files",
    ];
    let [time, integer, float, boolean, text] = match reader {
        "duckdb" => ["TIMESTAMP WITH TIME ZONE", "BIGINT", "DOUBLE", "BOOLEAN", "VARCHAR"],
        "openpyxl" => ["a time, UTC", "a whole number", "a number", "true or false", "text"],
        _ => ["Datetime(time_unit='us', time_zone='UTC')", "Int64", "Float64", "Boolean", "String"],
    };
    if column.ends_with("_at") || column.ends_with("_time") {
        time
    } else if numbers.contains(&column) {
        integer
    } else if ["duration_s", "size_mb"].contains(&column) {
        float
    } else if column == "event_info" && reader == "openpyxl" {
        "JSON, as text"
    } else if ["over", "webinar", "estimated"].contains(&column) {
        boolean
    } else {
        text
    }
}

pub async fn an_empty_table_is_a_valid_file(backend: Backend) {
    backend.log().await;
    for table in TABLES {
        let [ndjson, csv, parquet, xlsx] = exported(&backend, table).await;
        assert_eq!(fs::read_to_string(ndjson).expect("it is there"), "");
        let header = fs::read_to_string(csv).expect("it is there");
        let found = found(&[parquet, xlsx]);
        assert_eq!(found.len(), 3);
        for found in found {
            assert!(found.rows.is_empty());
            for (column, kind) in &found.types {
                assert_eq!(kind, expected_type(column, &found.reader), "{table}.{column} by {}", found.reader);
                assert!(header.trim_end().split(',').any(|name| name == column), "{column} in {header}");
            }
        }
    }
}

pub async fn the_documented_example_answers(backend: Backend) {
    filled(&backend).await;
    let example = docs::block("docs/use/export.md", "Export", "sh");
    let (_, query) = example.split_once("duckdb -c \"").expect("the example");
    let (query, _) = query.split_once("\"\n").expect("its end");
    let [ndjson, ..] = exported(&backend, "attendance").await;
    let ask = "import duckdb, json, sys; print(json.dumps(duckdb.sql(sys.argv[1]).fetchall(), default=str))";
    let mut asked = Command::new(tools::table_readers());
    asked.args(["-c", ask, query]).env("TZ", "UTC").current_dir(backend.folder.path());
    let answer: Vec<Value> = serde_json::from_str(&tools::output_of(&mut asked)).expect("JSON");
    // The same, by hand.
    let mut seconds: BTreeMap<(String, String), f64> = BTreeMap::new();
    for row in read(&ndjson) {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let day = text("joined_at").chars().take(10).collect();
        *seconds.entry((text("meeting_id"), day)).or_default() += row["duration_s"].as_f64().unwrap_or_default();
    }
    let most = seconds.values().copied().fold(0.0, f64::max);
    let (meeting, day) = (answer[0][0].as_str().expect("a number"), answer[0][1].as_str().expect("a day"));
    assert_eq!(seconds[&(meeting.to_owned(), day[..10].to_owned())], most, "{answer:?}");
    assert!((answer[0][3].as_f64().expect("hours") - most / 3_600.0).abs() < 0.051, "{answer:?}");
    assert_eq!(answer.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn libreoffice_finds_the_same_cells_and_no_formula_whatever_its_separator_is() {
    let backend = Backend::sqlite();
    filled(&backend).await;
    let mut books = Vec::new();
    for table in TABLES {
        books.extend(exported_as(&backend, table, ["xlsx"]).await);
    }
    let copies = by_libreoffice(&backend, "as-workbook", None, &books);
    for (mut held, copied) in found(&books).into_iter().zip(found(&copies)) {
        assert!(!held.rows.is_empty());
        for name in held.rows.iter_mut().filter_map(|row| row.get_mut("display_name")) {
            // In a cell of LibreOffice a line ends so.
            *name = name.as_str().map(|name| name.replace("\r\n", "\n")).into();
        }
        assert_eq!((copied.types, copied.rows), (held.types, held.rows), "{}", copied.file.display());
    }

    let csv = backend.folder.path().join("for-spreadsheet.csv");
    fs::write(&csv, export(&backend, &["events", "--spreadsheet"]).await.stdout).expect("written");
    let no_formula = "import openpyxl, sys; [sys.exit(f'{c.coordinate}: {c.value}') for path in sys.argv[1:] \
         for row in openpyxl.load_workbook(path).active.iter_rows() for c in row if c.data_type == 'f']";
    for separator in [',', ';', '\t'] {
        let filter = format!("Text - txt - csv (StarCalc):{},34,76,1", u32::from(separator));
        let opened = by_libreoffice(
            &backend,
            &format!("by-{}", u32::from(separator)),
            Some(&filter),
            std::slice::from_ref(&csv),
        );
        tools::output_of(Command::new(tools::table_readers()).args(["-c", no_formula]).args(opened));
    }
}

/// What LibreOffice holds after it opened the files, as workbooks.
fn by_libreoffice(backend: &Backend, name: &str, filter: Option<&str>, files: &[PathBuf]) -> Vec<PathBuf> {
    let [profile, folder] = ["libreoffice", name].map(|name| backend.folder.path().join(name));
    let mut command = Command::new(tools::libreoffice());
    command.arg(format!("-env:UserInstallation=file://{}", profile.display())).args([
        "--headless",
        "--convert-to",
        "xlsx",
    ]);
    command.args(filter.map(|filter| format!("--infilter={filter}"))).arg("--outdir").arg(&folder);
    tools::output_of(command.args(files));
    let copy = |file: &PathBuf| folder.join(file.with_extension("xlsx").file_name().expect("a name"));
    files.iter().map(copy).collect()
}
