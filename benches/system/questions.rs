//! The queries of docs/use/attendance.md on a large log: how long analysts wait. In PostgreSQL they run as the
//! role that the page creates.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Instant;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use rustix::fs::{Advice, fadvise};
use serde::Serialize;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection};
use time::{Date, format_description::well_known::Iso8601};

use crate::fill::Fill;
use crate::machine;
use crate::servers::{self, Database};
use crate::statistics::median;
use crate::support::docs::{self, Query};
use crate::support::postgres::Postgres;

/// Target for the duration of a query, in seconds.
const GOAL: f64 = 1.0;

/// How often each query runs in a row; the first run is the cold one.
const REPETITIONS: usize = 4;

/// Ask the questions of docs/use/attendance.md of a large log, on either database
#[derive(Clone, Debug, Args)]
pub struct Questions {
    /// Events in the log
    #[arg(long, default_value_t = 10_000_000)]
    pub rows: u64,

    /// How many days they are spread over
    #[arg(long, default_value_t = 365)]
    pub days: u32,

    /// One database only
    #[arg(long)]
    pub database: Option<Which>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Which {
    Sqlite,
    Postgres,
}

/// The duration of one query, in seconds, in each round.
#[derive(Debug, Serialize)]
struct Answered {
    database: &'static str,
    question: String,
    rows: usize,
    cold: Vec<f64>,
    warm: Vec<f64>,
}

impl Questions {
    pub async fn run(&self, rounds: usize) -> anyhow::Result<()> {
        println!("{}; {} events over {} days; medians of {rounds} rounds", machine::describe(), self.rows, self.days);
        let mut all = Vec::new();
        for (which, database) in [(Which::Sqlite, Database::Sqlite), (Which::Postgres, Database::Postgres)] {
            if self.database.is_none_or(|only| only == which) {
                let mut log = Large::make(self, database).await?;
                let answered = log.ask(rounds).await?;
                println!("\n{}", table(&answered));
                all.extend(answered);
            }
        }
        let file = servers::disk().parent().context("the target folder")?.join("bench-questions.json");
        std::fs::write(&file, format!("{:#}\n", serde_json::json!(all)))?;
        println!("\nevery measurement: {}", file.display());
        Ok(())
    }
}

fn table(answered: &[Answered]) -> String {
    let name = answered.first().map_or("", |first| first.database);
    let mut text = format!("| {name}, ms | rows | cold | warm | goal 1 s |\n|---|--:|--:|--:|---|\n");
    for line in answered {
        let [cold, warm] = [&line.cold, &line.warm].map(|times| median(&mut times.clone()));
        let mark = if cold.max(warm) < GOAL { "PASS" } else { "MISS" };
        text += &format!("| {} | {} | {:.0} | {:.1} | {mark} |\n", line.question, line.rows, cold * 1e3, warm * 1e3);
    }
    text
}

/// A filled log, removed when it is dropped.
struct Large {
    place: Place,
    queries: Vec<Query>,
}

enum Place {
    Sqlite { folder: tempfile::TempDir },
    Postgres(Box<Postgres>),
}

enum Session {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Large {
    async fn make(questions: &Questions, database: Database) -> anyhow::Result<Self> {
        let place = match database {
            Database::Sqlite => {
                Place::Sqlite { folder: tempfile::Builder::new().prefix("convoke-bench-").tempdir_in(servers::disk())? }
            }
            Database::Postgres => Place::Postgres(Box::new(servers::postgres().await)),
        };
        let fill = Fill { rows: questions.rows, url: place.url(), days: questions.days };
        eprintln!("{}: filling a log with {} rows", place.name(), questions.rows);
        let filled = fill.run().await?;
        eprintln!("  {:.0} s, and {:.0} s for the tables", filled.seconds, filled.tables_seconds);
        if let Place::Postgres(postgres) = &place {
            postgres.psql(&docs::role());
        }
        let mut session = place.session().await?;
        let about = session.busiest().await?;
        session.close().await?;
        let queries = docs::queries().into_iter().map(|query| about.put_into(query)).collect::<Result<_, _>>()?;
        Ok(Self { place, queries })
    }

    async fn ask(&mut self, rounds: usize) -> anyhow::Result<Vec<Answered>> {
        let mut all: Vec<Answered> = Vec::new();
        for query in &self.queries {
            let (mut cold, mut warm, mut rows) = (Vec::new(), Vec::new(), 0);
            for _ in 0..rounds {
                self.place.forget().await?;
                let mut session = self.place.session().await?;
                for time in 0..REPETITIONS {
                    let begun = Instant::now();
                    rows = session.rows(&query.sql).await.with_context(|| query.sql.clone())?;
                    if time == 0 { &mut cold } else { &mut warm }.push(begun.elapsed().as_secs_f64());
                }
                session.close().await?;
            }
            eprintln!("  {}", query.question);
            all.push(Answered { database: self.place.name(), question: query.question.clone(), rows, cold, warm });
        }
        Ok(all)
    }
}

impl Place {
    fn name(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Sqlite { folder } => format!("sqlite://{}", folder.path().join("convoke.db").display()),
            Self::Postgres(postgres) => postgres.url(),
        }
    }

    async fn session(&self) -> anyhow::Result<Session> {
        Ok(match self {
            Self::Sqlite { .. } => {
                let options = SqliteConnectOptions::from_str(&self.url())?.read_only(true);
                Session::Sqlite(SqliteConnection::connect_with(&options).await?)
            }
            Self::Postgres(postgres) => {
                let url = postgres.url().replacen("postgres@", "analyst@", 1);
                Session::Postgres(PgConnection::connect(&url).await?)
            }
        })
    }

    /// Empties the caches: the server's and, as far as the kernel heeds the advice, the page cache.
    async fn forget(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Sqlite { folder } => evict(folder.path()),
            Self::Postgres(postgres) => {
                postgres.stop_fast().await;
                evict(&postgres.data())?;
                postgres.restart().await;
                Ok(())
            }
        }
    }
}

/// Asks the kernel to drop the files below `folder` from its page cache.
fn evict(folder: &Path) -> anyhow::Result<()> {
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let file = File::open(entry.path())?;
                // Data that is not on the disk yet would stay in memory.
                file.sync_all()?;
                fadvise(&file, 0, None, Advice::DontNeed)?;
            }
        }
    }
    Ok(())
}

impl Session {
    async fn rows(&mut self, sql: &str) -> Result<usize, sqlx::Error> {
        match self {
            Self::Sqlite(session) => sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(session).await.map(|rows| rows.len()),
            Self::Postgres(session) => {
                sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(session).await.map(|rows| rows.len())
            }
        }
    }

    async fn texts(&mut self, sql: &str) -> Result<Vec<String>, sqlx::Error> {
        let sql = AssertSqlSafe(sql);
        match self {
            Self::Sqlite(session) => {
                let row = sqlx::query(sql).fetch_one(session).await?;
                (0..row.len()).map(|column| row.try_get(column)).collect()
            }
            Self::Postgres(session) => {
                let row = sqlx::query(sql).fetch_one(session).await?;
                (0..row.len()).map(|column| row.try_get(column)).collect()
            }
        }
    }

    /// The largest run of the last day, and a person who was in it.
    async fn busiest(&mut self) -> anyhow::Result<About> {
        let day = match self {
            Self::Sqlite(_) => "substr(began_at, 1, 10)",
            Self::Postgres(_) => "to_char(began_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
        };
        let newest = "SELECT meeting_uuid FROM meetings ORDER BY coalesce(started_at, first_event_at) DESC LIMIT 200";
        let run = format!(
            "SELECT meeting_uuid FROM meetings WHERE meeting_uuid IN ({newest}) ORDER BY stays DESC, meeting_uuid LIMIT 1"
        );
        let run = self.texts(&run).await?.concat();
        let sql = format!(
            "SELECT {day}, meeting_id, meeting_uuid, person FROM person_attendance WHERE meeting_uuid = '{run}'
              ORDER BY person LIMIT 1"
        );
        let texts = self.texts(&sql).await?;
        let [day, meeting, run, person] = &texts[..] else { anyhow::bail!("four columns") };
        let day = Date::parse(day, &Iso8601::DATE)?;
        Ok(About { day, meeting: meeting.clone(), run: run.clone(), person: person.clone() })
    }

    async fn close(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(session) => session.close().await,
            Self::Postgres(session) => session.close().await,
        }
    }
}

/// The values that replace those in the page's queries.
#[derive(Debug)]
struct About {
    day: Date,
    meeting: String,
    run: String,
    person: String,
}

impl About {
    /// Replaces the values. Dates keep their distance from the page's day.
    fn put_into(&self, query: Query) -> anyhow::Result<Query> {
        let printed = Date::parse(docs::DAY, &Iso8601::DATE)?;
        let mut sql = String::new();
        for (number, part) in query.sql.split('\'').enumerate() {
            let literal = number % 2 == 1;
            if number > 0 {
                sql.push('\'');
            }
            match part {
                docs::MEETING if literal => sql += &self.meeting,
                docs::RUN if literal => sql += &self.run,
                docs::PERSON if literal => sql += &self.person,
                part => match Date::parse(part, &Iso8601::DATE) {
                    Ok(date) if literal => sql += &(self.day + (date - printed)).to_string(),
                    _ => sql += part,
                },
            }
        }
        Ok(Query { sql, ..query })
    }
}
