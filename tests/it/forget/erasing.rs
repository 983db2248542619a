//! What is erased, and what stays.

use rustix::process::Signal;
use serde_json::json;

use super::person::{ADA, BOB, body, deliver, dump, files, forget_ada, has_every_secret, meetings, no_secret, settled};
use crate::{
    log_contract::fixture::Backend,
    replicas::newest_bus,
    support::{
        http,
        rig::{LONG_TIMEOUT, PATH, STREAM, audit, convoke, read_stream, stream_holds},
        sign::NOW,
    },
    tables::as_json::Seen,
};

/// A host as enrichment finds it: of two runs Ada, of one Bob.
async fn enrich(backend: &Backend) {
    let runs = [("11", ADA.name, "A talk of Ada Geheim \"王\""), ("22", ADA.user, "Weekly"), ("33", BOB.name, "Bob")];
    for (meeting, host, subject) in runs {
        let values = format!("host = '{host}', subject = '{subject}' WHERE meeting_uuid = 'run-{meeting}'");
        backend.execute(&format!("UPDATE meetings SET {values}")).await;
        backend
            .execute(&format!(
                "INSERT INTO enrichments (subscriber_id, meeting_uuid, state, status, modifications, tries, host, subject)
                 SELECT subscriber_id, meeting_uuid, 'enriched', status, 0, 1, host, subject FROM meetings
                  WHERE meeting_uuid = 'run-{meeting}'"
            ))
            .await;
    }
    // Ada is invited as a user, as a number, and under both by name; a user of the directory.
    for row in [
        format!("'{0}', '{0}', NULL, NULL, 'A.'", ADA.user),
        format!("'{0}', NULL, NULL, '{0}', '{1}'", ADA.number, ADA.name),
        format!("'{0}', '{0}', NULL, NULL, '{1}'", BOB.user, BOB.name),
    ] {
        backend
            .execute(&format!(
                "INSERT INTO invitations (subscriber_id, meeting_uuid, invitee, user_uuid, account, call_number, display_name)
                 SELECT subscriber_id, meeting_uuid, {row} FROM meetings WHERE meeting_uuid = 'run-11'"
            ))
            .await;
    }
    for user in [ADA.user, BOB.user] {
        let values = format!("VALUES ('{user}', 'Sales', '2026-11-27T00:00:00.000Z')");
        backend.execute(&format!("INSERT INTO people (user_uuid, department, due_at) {values}")).await;
    }
}

pub async fn a_person_is_erased_everywhere_and_nobody_else_is(backend: Backend) {
    let nats = newest_bus().await;
    let mut convoke = convoke(&backend.url, &nats.url()).start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    let mut infos = meetings();
    deliver(&convoke, &backend, &infos).await;
    // Two that are no events: one names Ada, deep inside.
    for (nonce, account) in [(1, ADA.account), (2, BOB.account)] {
        let odd =
            format!(r#"{{"event":"meeting.join","payload":{{"x":[{{"account":"{account}"}}],"name":"{}"}}}}"#, "n");
        assert_eq!(http::post(convoke.events, PATH, body(nonce, &odd), &[]).await.status, 200);
    }
    enrich(&backend).await;
    let js = nats.jetstream().await;
    stream_holds(&js, infos.len(), LONG_TIMEOUT).await;
    // A copy of all of it, on purpose.
    let replay = convoke.run(&["replay", "--since", "1970-01-01", "--again"]).await;
    assert_eq!(replay.code(), 0, "{replay:?}");
    let before = stream_holds(&js, 2 * infos.len(), LONG_TIMEOUT).await;
    has_every_secret("the database", &dump(&backend).await);
    has_every_secret("the store of the stream", &files(nats.folder()));
    let bobs = |message: &&crate::support::rig::Message| !message.body.contains(ADA.participant);
    let kept: Vec<u64> = before.iter().filter(bobs).map(|message| message.stream_sequence).collect();
    let columns = "seq, event_id, subscriber_id, event, occurred_at, received_at, meeting_id, meeting_uuid, join_time,
                   left_time, source, deliveries, last_delivered_at";
    let stay = |columns: &str, which: &str| {
        let text = if backend.postgres.is_some() { "CAST(e AS text)" } else { "e" };
        let row = columns.split(',').map(|column| format!("coalesce(CAST({} AS text), '-')", column.trim()));
        let row = row.collect::<Vec<_>>().join(" || ' ' || ");
        let all = if backend.postgres.is_some() { "string_agg" } else { "group_concat" };
        format!("SELECT {all}({text}, ';') FROM (SELECT {row} AS e FROM events WHERE {which} ORDER BY seq) AS t")
    };
    let times = backend.value(&stay(columns, "1 = 1")).await;
    let others =
        backend.value(&stay(&format!("{columns}, event_info, user_uuid, request_id"), "account = 'bob@demo'")).await;
    let seen = Seen::of(&backend).await;

    let report = forget_ada(&convoke, &[]).await;
    assert_eq!(
        report["erased"],
        json!({"events": 6, "stays": 3, "quarantined": 1, "hosts": 2, "invitations": 2, "people": 1, "messages": 12}),
        "{report:#}"
    );
    assert_eq!(report["also_named_by"], json!({"users": 0, "accounts": 0, "call_numbers": 1}));
    assert!(report["finished_at"].is_string() && report["resumed"] == false, "{report:#}");
    assert!(report["out_of_reach"].to_string().contains("backups"), "{report:#}");

    // Of the rows stays what the contract says, and of everybody else everything.
    no_secret("the database", &dump(&backend).await);
    assert_eq!(backend.value(&stay(columns, "1 = 1")).await, times);
    let bob = stay(&format!("{columns}, event_info, user_uuid, request_id"), "account = 'bob@demo'");
    assert_eq!(backend.value(&bob).await, others);
    let nulls = "user_uuid IS NULL AND user_agent IS NULL AND account IS NULL AND participant_id IS NULL
                 AND display_name IS NULL AND role IS NULL AND call_number IS NULL AND event_info IS NULL
                 AND request_id IS NULL AND traceparent IS NULL";
    let forgotten =
        format!("SELECT count(*) FROM events WHERE forgotten_at IS NOT NULL AND join_time IS NOT NULL AND {nulls}");
    assert_eq!(backend.value(&forgotten).await, "6");
    assert_eq!(backend.value("SELECT count(*) FROM events WHERE event_info IS NULL").await, "6");

    // Her stays have their times, and are nobody's.
    let now = Seen::of(&backend).await;
    let time = |row: &serde_json::Value| {
        json!([row["meeting_uuid"], row["joined_at"], row["left_at"], row["duration_s"], row["closed_by"]]).to_string()
    };
    let times = |seen: &Seen| {
        let mut times: Vec<String> = seen.attendance.iter().map(time).collect();
        times.sort();
        times
    };
    assert_eq!(times(&now), times(&seen));
    let nobodys = |row: &&serde_json::Value| {
        ["person", "user_uuid", "account", "display_name", "call_number", "user_agent", "role", "participant_id"]
            .iter()
            .all(|column| row[*column].is_null())
    };
    assert_eq!(now.attendance.iter().filter(nobodys).count(), 3);
    // Each of her stays counts as somebody: that they were one person's is gone with the rest.
    let counted: Vec<_> = now.meetings.iter().map(|row| (&row["stays"], &row["participants"])).collect();
    assert_eq!(counted, [(&json!(3), &json!(3)), (&json!(2), &json!(2)), (&json!(1), &json!(1))]);
    let hosts = "SELECT count(*) FROM meetings m JOIN enrichments e ON e.meeting_uuid = m.meeting_uuid
                  WHERE coalesce(m.host, '') = coalesce(e.host, '') AND coalesce(m.subject, '') = coalesce(e.subject, '')
                    AND CASE m.meeting_uuid WHEN 'run-11' THEN m.host IS NULL AND m.subject IS NULL
                                            WHEN 'run-22' THEN m.host IS NULL AND m.subject = 'Weekly'
                                            ELSE m.host = 'Bob' AND m.subject = 'Bob' END";
    assert_eq!(backend.value(hosts).await, "3");
    let not_hers = "SELECT (SELECT min(invitee) FROM invitations) || ' ' || (SELECT min(user_uuid) FROM people)";
    assert_eq!(backend.value(not_hers).await, format!("{0} {0}", BOB.user));

    // Of the stream exactly her messages, both copies, are gone, on the disk too.
    let after = read_stream(&js, STREAM).await;
    assert_eq!(after.iter().map(|message| message.stream_sequence).collect::<Vec<_>>(), kept);
    no_secret("the store of the stream", &files(nats.folder()));
    let (code, findings) = audit(&convoke, None).await;
    assert_eq!((code, &findings["stream"]["forgotten"]), (0, &json!(6)), "{findings:#}");
    assert_eq!(findings["stream"]["forgotten_there"], 0);

    // Nothing that reads the log falls over it, or brings it back.
    let replay = convoke.run(&["replay", "--since", "1970-01-01", "--again"]).await;
    assert!(replay.code() == 0 && replay.stdout.contains("6 not published: their person was forgotten"), "{replay:?}");
    for message in read_stream(&js, STREAM).await {
        no_secret("a replayed message", &message.body);
    }
    assert_eq!(convoke.run(&["replay", "--missing"]).await.code(), 0);
    let retried = convoke.run(&["quarantine", "retry", "--all"]).await;
    assert!(retried.stdout.contains("was forgotten"), "{retried:?}");
    assert_eq!(convoke.run(&["check"]).await.code(), 0);
    assert_eq!(convoke.run(&["rebuild", "--yes"]).await.code(), 0);
    let rebuilt = Seen::of(&backend).await;
    assert_eq!(rebuilt.attendance, now.attendance);

    // Done again it changes nothing, and is a record of its own.
    let again = forget_ada(&convoke, &[]).await;
    assert_eq!(
        again["erased"],
        json!({"events": 0, "stays": 0, "quarantined": 0, "hosts": 0, "invitations": 0, "people": 0, "messages": 0}),
        "{again:#}"
    );
    let record = "SELECT count(*) FROM erasures WHERE finished_at IS NOT NULL AND named_by = 'user, account'";
    assert_eq!(backend.value(record).await, "2");
    assert_eq!(backend.value("SELECT count(*) FROM erased_stays").await, "0");

    // What comes later is new.
    infos = BOB.stay("11", 2_000, 2_100).to_vec();
    infos.extend(ADA.stay("44", 3_000, 3_100));
    deliver(&convoke, &backend, &infos).await;
    assert_eq!(backend.value(&format!("SELECT count(*) FROM events WHERE user_uuid = '{}'", ADA.user)).await, "2");
    assert_eq!(forget_ada(&convoke, &[]).await["erased"]["events"], 2);
    no_secret("the service's log", &convoke.logs());

    if backend.postgres.is_none() {
        convoke.signal(Signal::TERM);
        assert!(convoke.wait_exit(LONG_TIMEOUT).await.success());
        forget_ada(&convoke, &["--vacuum"]).await;
        no_secret("the database's files", &files(backend.folder.path()));
        let control = files(backend.folder.path());
        assert!(control.contains(BOB.account), "they can be read so");
    }
}

pub async fn what_the_log_has_dropped_is_erased_from_the_tables_and_the_stream(backend: Backend) {
    let nats = newest_bus().await;
    let convoke = convoke(&backend.url, &nats.url()).start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    let infos = meetings();
    deliver(&convoke, &backend, &infos).await;
    let js = nats.jetstream().await;
    stream_holds(&js, infos.len(), LONG_TIMEOUT).await;
    // As the retention does.
    backend.execute("DELETE FROM events WHERE meeting_uuid = 'run-11'").await;
    let report = forget_ada(&convoke, &[]).await;
    assert_eq!(
        report["erased"],
        json!({"events": 2, "stays": 3, "quarantined": 0, "hosts": 0, "invitations": 0, "people": 0, "messages": 6}),
        "{report:#}"
    );
    no_secret("the database", &dump(&backend).await);
    let seen = Seen::of(&backend).await;
    assert_eq!((seen.attendance.len(), &seen.meetings[0]["stays"]), (6, &json!(3)));
    for message in read_stream(&js, STREAM).await {
        no_secret("the stream", &message.body);
    }
    assert_eq!(read_stream(&js, STREAM).await.len(), infos.len() - 6);
    settled(&backend).await;
}

pub async fn a_dry_run_counts_the_same_and_changes_nothing(backend: Backend) {
    let nats = newest_bus().await;
    let convoke = convoke(&backend.url, &nats.url()).start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    let infos = meetings();
    deliver(&convoke, &backend, &infos).await;
    let js = nats.jetstream().await;
    stream_holds(&js, infos.len(), LONG_TIMEOUT).await;
    let before =
        (Seen::of(&backend).await, backend.value("SELECT count(*) FROM events WHERE event_info IS NULL").await);
    let dry = convoke.run(&["forget", "--call-number", ADA.number, "--dry-run", "--json"]).await;
    assert_eq!(dry.code(), 0, "{}", dry.stderr);
    let dry: serde_json::Value = serde_json::from_str(&dry.stdout).expect("a report");
    assert_eq!(dry["also_named_by"], json!({"users": [ADA.user], "accounts": [ADA.account], "call_numbers": []}));
    assert_eq!(dry["first_event_at"], json!(convoke_core::time::Millis::new(NOW + 15).expect("a time").to_string()));
    assert_eq!(before, (Seen::of(&backend).await, "0".to_owned()));
    for table in ["erasures", "forgotten", "forgotten_key", "erased_stays", "erased_events"] {
        assert_eq!(backend.value(&format!("SELECT count(*) FROM {table}")).await, "0", "{table}");
    }
    assert_eq!(read_stream(&js, STREAM).await.len(), infos.len());
    let survey = convoke.run(&["forget", "--call-number", ADA.number, "--dry-run"]).await;
    let words = ["log          6 events would be erased", "stream       6 messages", &format!("--user {}", ADA.user)];
    assert!(words.iter().all(|words| survey.stdout.contains(words)), "{}", survey.stdout);

    for (arguments, words) in [
        (vec!["forget", "--yes"], "at least one of --user, --account, --call-number, --stay, or --meeting with --name"),
        (vec!["forget", "--account", "", "--yes"], "must not be empty"),
        (vec!["forget", "--name", "Ada", "--yes"], "--meeting"),
        (vec!["forget", "--stay", "ada", "--yes"], "--stay"),
        // Nobody sits there who could be asked.
        (vec!["forget", "--call-number", ADA.number], "--yes"),
    ] {
        let refused = convoke.run(&arguments).await;
        assert!(refused.code() == 2 && refused.stderr.contains(words), "{arguments:?}: {refused:?}");
    }
    let report = convoke.run(&["forget", "--call-number", ADA.number, "--yes", "--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&report.stdout).expect("a report");
    assert_eq!(report["erased"], dry["found"]);
}
