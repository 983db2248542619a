//! `convoke forget`.

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::terminal::{can_ask, confirm, progress_bar};
use super::{Failure, Outcome};
use crate::app;
use crate::config::{ConfigArgs, Env, Settings};
use crate::forget::{Forget, ForgetError, ForgetReport, ForgetTestData, OtherHandles, Part, Survey};
use crate::printable::printable;
use crate::words::counted;
use convoke_core::id::Seq;
use convoke_log::{Erased, Handles, TestDataCounts};

#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  convoke forget --account wang.wei@example.com --dry-run\n  convoke forget --test-data"
)]
pub struct ForgetArguments {
    /// The person's user UUID (column user_uuid); may be repeated
    #[arg(long = "user", visible_alias = "user-uuid", value_name = "UUID", value_parser = handle)]
    users: Vec<String>,
    /// The person's account (column account); may be repeated
    #[arg(long = "account", value_name = "NAME", value_parser = handle)]
    accounts: Vec<String>,
    /// The person's call number (column call_number); may be repeated. A number that several people use, such as a room's,
    /// also matches the events of the others
    #[arg(long = "call-number", value_name = "NUMBER", allow_hyphen_values = true, value_parser = handle)]
    call_numbers: Vec<String>,
    /// A stay of the person (column stay_id of attendance); may be repeated. For a guest known by name only
    #[arg(long = "stay", value_name = "ID")]
    stays: Vec<Uuid>,
    /// The meeting for --name, by its number or UUID
    #[arg(long, value_name = "ID", requires = "names", value_parser = handle)]
    meeting: Option<String>,
    /// The person's exact name in --meeting (column display_name); may be repeated
    #[arg(long = "name", value_name = "NAME", requires = "meeting", value_parser = handle)]
    names: Vec<String>,
    /// Instead of a person: delete all meetings that `convoke send` and `convoke simulate` made, with their events
    #[arg(long, conflicts_with_all = ["users", "accounts", "call_numbers", "stays", "meeting", "names", "vacuum"])]
    test_data: bool,
    /// Only report what would be erased, and which other names and IDs of the person are in the same events
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation; required if standard input is not a terminal
    #[arg(long)]
    yes: bool,
    /// Also clean up the database's files (VACUUM). SQLite rewrites its file, and events wait meanwhile
    #[arg(long, conflicts_with = "dry_run")]
    vacuum: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: ConfigArgs,
}

fn handle(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("must not be empty: it would match everybody without one".to_owned());
    }
    Ok(text.to_owned())
}

/// What no command can erase, whatever the database.
const OUT_OF_REACH: [&str; 4] = [
    "backups of the database and of the stream: after a restore, run forget again",
    "data that consumers of the stream have stored, and copies of the stream (mirrors, sources)",
    "exported files and query results",
    "data on the platform itself; logs; and this command in the shell's history",
];

pub async fn run(arguments: &ForgetArguments, env: &Env) -> Outcome {
    let ForgetArguments { users, accounts, call_numbers, stays, meeting, names, .. } = arguments.clone();
    let handles = Handles { users, accounts, call_numbers, stays, meeting, names };
    if handles.is_empty() && !arguments.test_data {
        return Err(Failure::Usage(
            "name the person: at least one of --user, --account, --call-number, --stay, or --meeting with --name; or \
             --test-data"
                .to_owned(),
        ));
    }
    if !arguments.dry_run {
        can_ask(arguments.yes)?;
    }
    let settings = super::settings(&arguments.settings, env, "warn")?;
    super::with_log(&settings, async |log| {
        let bus = super::open_bus_if_named(&settings).await?.map(Arc::new);
        if arguments.test_data {
            let forget = ForgetTestData::new(log.clone(), bus, app::owner());
            return forget_test_data(&forget, arguments).await;
        }
        let forget = Forget::new(log.clone(), bus, handles, app::owner());
        forget_with(&forget, arguments, &settings).await
    })
    .await
}

async fn forget_with(forget: &Forget, arguments: &ForgetArguments, settings: &Settings) -> Outcome {
    if arguments.dry_run || !arguments.yes {
        let survey = progressing(async |say| forget.survey(say).await).await?;
        if arguments.dry_run {
            print_survey(&survey, settings, arguments.json);
            return Ok(());
        }
        print_survey(&survey, settings, false);
        confirm(arguments.yes, "erase this? It cannot be undone", "nothing was erased")?;
    }
    let report = progressing(async |say| forget.erase(arguments.vacuum, say).await).await.inspect_err(|_| {
        eprintln!(
            "convoke: interrupted; what was erased stays erased. Run the same command again \
                                    to continue"
        );
    })?;
    print_report(&report, settings, arguments.json);
    Ok(())
}

async fn forget_test_data(forget: &ForgetTestData, arguments: &ForgetArguments) -> Outcome {
    if arguments.dry_run || !arguments.yes {
        let found = progressing(async |say| forget.survey(say).await).await?;
        print_test_data(&found, arguments.dry_run, arguments.json && arguments.dry_run);
        if arguments.dry_run {
            return Ok(());
        }
        confirm(arguments.yes, "delete this test data? It cannot be undone", "nothing was deleted")?;
    }
    let deleted = progressing(async |say| forget.delete(say).await).await.inspect_err(|_| {
        eprintln!(
            "convoke: interrupted; what was deleted stays deleted. Run the same command again \
                                    to continue"
        );
    })?;
    print_test_data(&deleted, false, arguments.json);
    Ok(())
}

fn print_test_data(counts: &TestDataCounts, dry_run: bool, json: bool) {
    if json {
        println!("{:#}", json!({"dry_run": dry_run, (if dry_run { "found" } else { "deleted" }): counts}));
        return;
    }
    let TestDataCounts { events, meetings, stays, recordings, work_items, quarantined, messages } = counts;
    println!("log          {} of test meetings", counted(*events, "event", "events"));
    println!(
        "tables       {}, {}, {}; {} of work lists",
        counted(*meetings, "meeting", "meetings"),
        counted(*stays, "stay", "stays"),
        counted(*recordings, "recording", "recordings"),
        counted(*work_items, "entry", "entries")
    );
    println!("quarantine   {}", counted(*quarantined, "body", "bodies"));
    println!("stream       {}", counted(*messages, "message", "messages"));
}

/// Shows the progress on a terminal.
async fn progressing<T>(work: impl AsyncFnOnce(&mut dyn FnMut(Part)) -> Result<T, ForgetError>) -> Result<T, Failure> {
    let bar = progress_bar(true, "{msg:22} {bar:40} {percent:>3} %  {elapsed}");
    let mut say = |part: Part| {
        let (doing, share) = match part {
            Part::Finding(at, head) => ("searching the log", Some((at, head))),
            Part::Log(at, head) => ("erasing in the log", Some((at, head))),
            Part::Quarantine => ("the quarantine", None),
            Part::Tables => ("the analyst tables", None),
            Part::Stream => ("the stream", None),
        };
        bar.set_message(doing);
        let (at, head) = share.unwrap_or((Seq(1), Seq(1)));
        bar.set_length(head.0.unsigned_abs());
        bar.set_position(at.0.unsigned_abs());
    };
    let done = work(&mut say).await;
    bar.finish_and_clear();
    done.map_err(|error| Failure::Failed(error.into()))
}

fn rows(erased: &Erased, done: &str) {
    let Erased { events, stays, quarantined, hosts, invitations, people, messages } = erased;
    println!("log          {} {done}", counted(*events, "event", "events"));
    println!(
        "tables       {}, {}, {}, {}",
        counted(*stays, "stay", "stays"),
        counted(*hosts, "host of a meeting", "hosts of meetings"),
        counted(*invitations, "invitation", "invitations"),
        counted(*people, "entry of the directory", "entries of the directory")
    );
    println!("quarantine   {}", counted(*quarantined, "body", "bodies"));
    println!("stream       {}", counted(*messages, "message", "messages"));
}

fn print_survey(survey: &Survey, settings: &Settings, json: bool) {
    if json {
        let report = json!({"dry_run": true, "found": survey.found, "first_event_at": survey.between.map(|it| it.0),
            "last_event_at": survey.between.map(|it| it.1), "also_named_by": survey.others});
        println!("{report:#}");
        return;
    }
    rows(&survey.found, "would be erased");
    let zone = &settings.reports.time_zone;
    if let Some((first, last)) = survey.between.map(|(first, last)| (zone.local(first), zone.local(last))) {
        println!("between      {first} and {last}");
    }
    let OtherHandles { users, accounts, call_numbers } = &survey.others;
    for (option, values) in [("--user", users), ("--account", accounts), ("--call-number", call_numbers)] {
        for value in values {
            println!("also named   {option} {}", shown(value));
        }
    }
    if !survey.others.is_empty() {
        println!("events that contain only these are not found: add those that belong to this person alone");
    }
}

/// A name in a form that is safe to copy: names may be hostile.
fn shown(text: &str) -> String {
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || "'\"\\$`".contains(c)) {
        printable(&format!("{text:?}")).into_owned()
    } else {
        printable(text).into_owned()
    }
}

fn print_report(report: &ForgetReport, settings: &Settings, json: bool) {
    let mut left: Vec<&str> = report.left.iter().map(String::as_str).collect();
    left.extend(OUT_OF_REACH);
    if app::bus_options(settings).is_none() {
        left.push("the stream, if there ever was one: nats.url is none");
    }
    let [users, accounts, call_numbers] = report.others.counts();
    let erasure = &report.erasure;
    if json {
        let report = json!({"dry_run": false, "erasure": erasure.id, "begun_at": erasure.begun_at.to_string(),
            "finished_at": erasure.finished_at.map(|at| at.to_string()), "resumed": report.resumed,
            "erased": erasure.counts,
            "also_named_by": {"users": users, "accounts": accounts, "call_numbers": call_numbers},
            "out_of_reach": left});
        println!("{report:#}");
        return;
    }
    if report.resumed {
        println!("continued an interrupted erasure; counted from its beginning:");
    }
    rows(&erasure.counts, "erased");
    println!("record       erasure {}, begun at {}", erasure.id, settings.reports.time_zone.local(erasure.begun_at));
    if !report.others.is_empty() {
        println!(
            "also named   by {}, {} and {} that were not given: events that contain only these were not erased",
            counted(users, "user UUID", "user UUIDs"),
            counted(accounts, "account", "accounts"),
            counted(call_numbers, "call number", "call numbers")
        );
    }
    println!("out of reach:");
    for part in left {
        println!("  {part}");
    }
}
