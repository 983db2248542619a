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
use convoke_core::id::Seq;
use convoke_log::{Erased, Handles, TestDataCounts};

#[derive(Clone, Debug, clap::Args)]
pub struct ForgetArguments {
    /// The person's user UUID, as in the column user_uuid; may be repeated
    #[arg(long = "user", visible_alias = "user-uuid", value_name = "UUID", value_parser = handle)]
    users: Vec<String>,
    /// The person's account, as in the column account; may be repeated
    #[arg(long = "account", value_name = "NAME", value_parser = handle)]
    accounts: Vec<String>,
    /// The person's call number, as in the column call_number; may be repeated. A number that others use, too, of a room
    /// say, finds their events as well
    #[arg(long = "call-number", value_name = "NUMBER", allow_hyphen_values = true, value_parser = handle)]
    call_numbers: Vec<String>,
    /// A stay of the person, as in the column stay_id of attendance; may be repeated. For a guest of whom only a name is known
    #[arg(long = "stay", value_name = "ID")]
    stays: Vec<Uuid>,
    /// The meeting, by its number or UUID, in which --name names the person
    #[arg(long, value_name = "ID", requires = "names", value_parser = handle)]
    meeting: Option<String>,
    /// The person's name in --meeting, exactly as in the column display_name; may be repeated
    #[arg(long = "name", value_name = "NAME", requires = "meeting", value_parser = handle)]
    names: Vec<String>,
    /// Instead of a person: everything of meetings that `convoke send` and `convoke simulate` made. Their events are deleted, not
    /// only emptied
    #[arg(long, conflicts_with_all = ["users", "accounts", "call_numbers", "stays", "meeting", "names", "vacuum"])]
    test_data: bool,
    /// Only say how much there is, and what else names the person in the same events
    #[arg(long)]
    dry_run: bool,
    /// Do not ask; needed where standard input is no terminal
    #[arg(long)]
    yes: bool,
    /// Also clean up the database's files (VACUUM). An embedded database is written anew, and takes no events meanwhile
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
        return Err("must not be empty: it would name everybody who has none".to_owned());
    }
    Ok(text.to_owned())
}

/// What no command can erase, whatever the database.
const OUT_OF_REACH: [&str; 4] = [
    "backups of the database and of the stream: what is restored from them has the person in it, until forget is run again",
    "what consumers of the stream have kept, and copies of the stream (mirrors, sources)",
    "files that were exported, and the results of queries",
    "what the platform itself keeps; and logs, and a shell's history that has this command in it",
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
            print_survey(&survey, arguments.json);
            return Ok(());
        }
        print_survey(&survey, false);
        confirm(arguments.yes, "erase this? What is erased does not come back", "nothing was erased")?;
    }
    let report = progressing(async |say| forget.erase(arguments.vacuum, say).await)
        .await
        .inspect_err(|_| eprintln!("convoke: what was erased until now stays erased; the same command goes on"))?;
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
        confirm(arguments.yes, "delete this test data? What is deleted does not come back", "nothing was deleted")?;
    }
    let deleted = progressing(async |say| forget.delete(say).await)
        .await
        .inspect_err(|_| eprintln!("convoke: what was deleted until now stays deleted; the same command goes on"))?;
    print_test_data(&deleted, false, arguments.json);
    Ok(())
}

fn print_test_data(counts: &TestDataCounts, dry_run: bool, json: bool) {
    if json {
        println!("{:#}", json!({"dry_run": dry_run, (if dry_run { "found" } else { "deleted" }): counts}));
        return;
    }
    let TestDataCounts { events, meetings, stays, recordings, work_items, quarantined, messages } = counts;
    println!("log          {events} events of test meetings");
    println!(
        "tables       {meetings} meetings, {stays} stays, {recordings} recordings; {work_items} entries of work lists"
    );
    println!("quarantine   {quarantined} bodies");
    println!("stream       {messages} messages");
}

/// Shows the progress on a terminal.
async fn progressing<T>(work: impl AsyncFnOnce(&mut dyn FnMut(Part)) -> Result<T, ForgetError>) -> Result<T, Failure> {
    let bar = progress_bar(true, "{msg:22} {bar:40} {percent:>3} %  {elapsed}");
    let mut say = |part: Part| {
        let (doing, share) = match part {
            Part::Finding(at, head) => ("looking in the log", Some((at, head))),
            Part::Log(at, head) => ("going through the log", Some((at, head))),
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
    let Erased { events, stays, quarantined, hosts, messages } = erased;
    println!("log          {events} events {done}");
    println!("tables       {stays} stays, {hosts} hosts of meetings");
    println!("quarantine   {quarantined} bodies");
    println!("stream       {messages} messages");
}

fn print_survey(survey: &Survey, json: bool) {
    let between = survey.between.map(|(first, last)| (first.to_string(), last.to_string()));
    if json {
        let report = json!({"dry_run": true, "found": survey.found, "first_event_at": between.as_ref().map(|it| &it.0),
            "last_event_at": between.as_ref().map(|it| &it.1), "also_named_by": survey.others});
        println!("{report:#}");
        return;
    }
    rows(&survey.found, "would be erased");
    if let Some((first, last)) = between {
        println!("between      {first} and {last}");
    }
    let OtherHandles { users, accounts, call_numbers } = &survey.others;
    for (option, values) in [("--user", users), ("--account", accounts), ("--call-number", call_numbers)] {
        for value in values {
            println!("also named   {option} {}", shown(value));
        }
    }
    if !survey.others.is_empty() {
        println!("events that only these name are not found: add those that are this person's alone");
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
        left.push("a stream, if there ever was one: nats.url is none");
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
        println!("went on with an erasure that was broken off; counted from its beginning:");
    }
    rows(&erasure.counts, "erased");
    println!("record       erasure {}, begun at {}", erasure.id, erasure.begun_at);
    if !report.others.is_empty() {
        println!(
            "also named   by {users} user UUIDs, {accounts} accounts and {call_numbers} call numbers that were not given: events \
             that only these name are still there"
        );
    }
    println!("out of reach:");
    for part in left {
        println!("  {part}");
    }
}
