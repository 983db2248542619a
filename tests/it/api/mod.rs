//! `/api/v1`, its tokens and sessions, and its streams, on the running service.

mod access;
mod actions;
mod document;
mod downloads;
mod examples;
mod lists;
mod statistics;
mod streams;

use std::time::Duration;

use serde_json::Value;

use crate::{
    log_contract::fixture::{Backend, on_both},
    support::{
        http::{self, Answer},
        process::{Convoke, ConvokeBuilder},
        rig::{self, APP_ID, KEY, LONG_TIMEOUT, PATH},
        wait::eventually,
    },
};

/// The token that shows everything, and the one that masks.
const ALL: &str = "all-of-it-and-no-less";
const VIEW: &str = "view-only-and-no-more";

on_both! {
    actions:
        the_quarantine_is_retried_and_discarded_once_for_each_id
        what_the_stream_misses_and_a_range_are_replayed_once_for_each_id
        an_action_that_a_stop_interrupts_says_so_and_another_does_the_rest
        the_same_id_at_once_at_two_replicas_is_done_once;
    access:
        signing_out_ends_the_session_on_every_replica;
    downloads:
        a_list_is_downloaded_whole_masked_as_it_is_shown_and_harmless_for_spreadsheets
        a_file_is_broken_off_when_the_database_fails_half_way;
    lists:
        every_list_is_read_page_by_page_and_stays_stable_while_events_arrive
        every_filter_of_every_list_leaves_out_what_it_should
        limits_are_said_and_what_is_not_there_is_not_found
        personal_data_is_masked_unless_the_token_has_the_right
        large_events_are_reported_a_bounded_part_at_a_time
        sql_and_html_in_every_field_are_text
        the_quarantine_says_why;
    statistics:
        statistics_count_what_happened
        health_says_what_the_service_knows;
    streams:
        a_stream_ends_with_the_session_that_it_was_opened_in
        a_stream_goes_on_after_a_restart_without_a_gap
        a_forgotten_person_is_reported_to_nobody_who_comes_back_to_a_stream
        what_the_page_shows_comes_once_a_second;
}

/// A service with both tokens.
struct Scene {
    convoke: Convoke,
    backend: Backend,
}

fn builder(backend: &Backend) -> ConvokeBuilder {
    rig::convoke(&backend.url, "none").setting("ADMIN_TOKEN", ALL).setting("ADMIN_VIEWER_TOKEN", VIEW)
}

impl Scene {
    async fn start(backend: Backend) -> Self {
        let convoke = builder(&backend).start().await;
        convoke.wait_ready(LONG_TIMEOUT).await;
        Self { convoke, backend }
    }

    async fn deliver(&self, info: &str) {
        deliver(&self.convoke, info).await;
    }

    /// What the API answers with this token.
    async fn ask(&self, path: &str, token: &str) -> Answer {
        ask(&self.convoke, path, token).await
    }

    /// The same, for who sees everything, where it is to be answered.
    async fn all(&self, path: &str) -> Value {
        let answer = self.ask(path, ALL).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// Waits until the tables know of so many stays and runs.
    async fn tables(&self, meetings: u64, stays: u64) {
        let sql = "SELECT (SELECT count(*) FROM meetings) * 1000 + (SELECT count(*) FROM attendance)";
        let goal = (meetings * 1000 + stays).to_string();
        eventually("the tables are there", LONG_TIMEOUT, async || {
            let there = self.backend.value(sql).await;
            if there == goal { Ok(()) } else { Err(there) }
        })
        .await;
    }
}

async fn deliver(convoke: &Convoke, info: &str) {
    let body = convoke_core::sign::envelope(APP_ID, 1_790_000_000_000, "12345678", info.as_bytes(), KEY.as_bytes());
    assert_eq!(http::post(convoke.events, PATH, body, &[]).await.status, 200, "{info}");
}

async fn ask(convoke: &Convoke, path: &str, token: &str) -> Answer {
    request(convoke, reqwest::Method::GET, path, &[("authorization", &format!("Bearer {token}"))], "").await
}

/// Any request to the admin listener.
async fn request(
    convoke: &Convoke,
    method: reqwest::Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &'static str,
) -> Answer {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(40))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .expect("a client");
    let request = client.request(method, format!("http://{}{path}", convoke.admin)).body(body);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: response.bytes().await.expect("a body") }
}

/// The events of `at` ms after the epoch: a meeting in which `who` is for a while.
fn event(kind: &str, at: i64, meeting: &str, uuid: &str, attendee: &str) -> String {
    let attendee = if attendee.is_empty() { String::new() } else { format!(r#","attendeeInfo":{{{attendee}}}"#) };
    format!(
        r#"{{"event":"{kind}","timestamp":{at},"payload":{{"meetingInfo":{{"meetingID":"{meeting}","meetingUUID":"{uuid}"}}{attendee}}}}}"#
    )
}

/// Somebody in a meeting.
fn who(name: &str, joined: i64, left: i64) -> String {
    format!(
        r#""userUUID":"user-{name}","account":"{name}.li","participantID":"part-{name}","displayName":"{name} Li","callNumber":"+86139000012{joined}","role":"GENERAL","joinTime":{joined},"leftTime":{left}"#
    )
}

fn items(answer: &Value) -> &Vec<Value> {
    answer["items"].as_array().unwrap_or_else(|| panic!("no items in {answer}"))
}

/// One member of each item.
fn column(answer: &Value, name: &str) -> Vec<String> {
    let text = |item: &Value| item[name].as_str().map_or_else(|| item[name].to_string(), str::to_owned);
    items(answer).iter().map(text).collect()
}
