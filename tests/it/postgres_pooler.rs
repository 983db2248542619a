//! A connection pooler between Convoke and PostgreSQL: one that pools sessions is not felt; one that hands a session on after
//! each transaction is found out before anything is done through it.

use crate::support::{
    http,
    nats::{NatsOptions, NatsServer, NatsVersion},
    pgbouncer::PgBouncer,
    postgres::Postgres,
    process::{Convoke, run_convoke},
    rig::*,
    wait::eventually,
};

/// What is said of a pooler that cannot be used.
const REFUSAL: &str = "connection pooler in transaction mode";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_behind_a_pooler_of_sessions_work_as_without_it_under_load() {
    let (nats, postgres) =
        tokio::join!(NatsServer::start(NatsVersion::Newest, NatsOptions::default()), Postgres::start());
    let pooler = PgBouncer::start(postgres.address(), "session", "default_pool_size = 50").await;
    // A default of the database that would lose events: behind a pooler, too, the session's own settings count.
    postgres.psql("ALTER DATABASE postgres SET synchronous_commit = off");
    let (mut one, two) =
        tokio::join!(convoke(&pooler.url(), &nats.url()).start(), convoke(&pooler.url(), &nats.url()).start());
    one.wait_ready(TEN).await;
    two.wait_ready(TEN).await;
    postgres.psql(
        "CREATE TABLE seen (settings text);
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO seen SELECT concat_ws(' ', current_setting('synchronous_commit'), current_setting('lock_timeout'),
                 current_setting('idle_in_transaction_session_timeout'));
             RETURN NULL; END $$;
         CREATE TRIGGER see AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION see()",
    );
    let (mut load, mut other) = (Load::steady(one.events, 31), Load::steady(two.events, 32));
    load.proceeds(100).await;
    other.proceeds(100).await;
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'convoke'";
    let sessions: u32 = postgres.psql(sessions).parse().expect("a number");
    assert!((4..=20).contains(&sessions), "{sessions} sessions of two replicas");
    // The pooler hands a session of the replica that died to its next start.
    one.kill().await;
    one.restart().await;
    one.wait_ready(TEN).await;
    load.proceeds(100).await;
    load.stop().await;
    other.stop().await;
    let js = nats.jetstream().await;
    nothing_is_lost(&two, &js, &load.ledger).await;
    nothing_is_lost(&two, &js, &other.ledger).await;
    assert_eq!(postgres.psql("SELECT DISTINCT settings FROM seen"), "on 2s 5s");
    let checked = two.run(&["check"]).await;
    assert_eq!(checked.code(), 0, "{}", checked.stdout);
}

async fn is_refused(postgres: &Postgres, pooler: &PgBouncer) {
    let url = pooler.url();
    let finished = convoke(&url, "none").arg("check").run().await;
    assert_eq!(finished.code(), 1, "{}", finished.stdout);
    let line = finished.stdout.lines().find(|line| line.starts_with("FAIL  database")).expect("a line");
    assert!(line.contains(REFUSAL) && line.contains("pool_mode = session"), "{line}");
    let migrate = run_convoke(&["migrate"], &[("CONVOKE_DATABASE_URL", &url)]).await;
    assert_eq!(migrate.code(), 1);
    assert!(migrate.stderr.contains(REFUSAL), "{}", migrate.stderr);
    assert_eq!(postgres.psql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0", "nothing was made");
}

/// Through these lines of a pooler's configuration, in either mode that hands sessions on.
async fn every_use_is_refused(mode: &str, more: &str) {
    let postgres = Postgres::start().await;
    let pooler = PgBouncer::start(postgres.address(), mode, more).await;
    is_refused(&postgres, &pooler).await;
    let mut convoke: Convoke = convoke(&pooler.url(), "none").start().await;
    eventually("it says what is wrong", TEN, async || lines_with(&convoke, REFUSAL) > 0).await;
    let tries = pooler.log().matches("login attempt").count() + 8;
    eventually("it goes on trying", TEN, async || pooler.log().matches("login attempt").count() >= tries).await;
    assert_eq!(Sample::number(1).deliver(convoke.events).await, 503);
    assert_eq!(http::get(&format!("http://{}/readyz", convoke.events)).await.status, 503);
    convoke.signal(rustix::process::Signal::TERM);
    assert!(convoke.wait_exit(TEN).await.success());
    assert_eq!(lines_with(&convoke, REFUSAL), 1, "{}", convoke.logs());
    // Nothing was left in the sessions that others get.
    let theirs = crate::support::postgres::psql(&pooler.url(), "SHOW lock_timeout");
    assert_eq!(theirs, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_of_transactions_is_found_out_and_refused() {
    every_use_is_refused("transaction", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_of_statements_is_found_out_and_refused() {
    every_use_is_refused("statement", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_takes_its_servers_in_turn_is_found_out_all_the_same() {
    let postgres = Postgres::start().await;
    let pooler = PgBouncer::start(postgres.address(), "transaction", "server_round_robin = 1\nmin_pool_size = 5").await;
    is_refused(&postgres, &pooler).await;
}
