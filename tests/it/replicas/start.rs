//! Replicas that start together.

use super::*;
use crate::support::process::Finished;

/// A database in which there is nothing, and what is to be in it.
async fn all_start_on(url: &str, serving: usize, migrating: usize) -> Vec<Convoke> {
    let serve = join_all((0..serving).map(|_| convoke(url, "none").start()));
    let migrate = join_all((0..migrating).map(|_| convoke(url, "none").arg("migrate").run()));
    let (replicas, migrations): (Vec<Convoke>, Vec<Finished>) = tokio::join!(serve, migrate);
    for migration in migrations {
        assert_eq!(migration.code(), 0, "{}", migration.stderr);
    }
    join_all(replicas.iter().map(|replica| replica.wait_ready(LONG_TIMEOUT))).await;
    replicas
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_together_on_an_empty_database_migrate_it_once_under_load() {
    let postgres = Postgres::start().await;
    let layout = "SELECT count(*) FILTER (WHERE relkind IN ('r', 'p')), count(*) FILTER (WHERE relispartition)
                    FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    let mut layouts = HashSet::new();
    for round in 0..5 {
        let url = postgres.database(&format!("round{round}"));
        // The first round is alone, for comparison.
        let (serving, migrating) = if round == 0 { (1, 0) } else { (4, 2) };
        let mut replicas = all_start_on(&url, serving, migrating).await;
        layouts.insert(psql(&url, layout));
        let sample = Sample::number(round);
        let answers = join_all(replicas.iter().map(|replica| sample.deliver(replica.events))).await;
        assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
        assert_eq!(psql(&url, "SELECT count(*), sum(deliveries) FROM events"), format!("1|{serving}"));
        for replica in &mut replicas {
            let errors = replica.logs().lines().filter(|line| line.contains("\"ERROR\"")).count();
            assert_eq!(errors, 0, "{}", replica.logs());
            replica.signal(Signal::TERM);
        }
        for replica in &mut replicas {
            assert!(replica.wait_exit(TEN).await.success());
        }
    }
    assert_eq!(layouts.len(), 1, "{layouts:?}");
}
