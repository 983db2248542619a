//! Two replicas on one PostgreSQL and one JetStream, compared with one.

use super::Tables;
use crate::comparison::{Must, Table};
use crate::run::{Bench, Case};
use crate::servers::Server;

const CONNECTIONS: usize = 256;

pub(super) async fn run(bench: &mut Bench, tables: &mut Tables) {
    let case = Case::POSTGRES_BUS;
    let mut table = Table::new(format!("{}, {CONNECTIONS} connections", case.name()), "one replica", "two");
    for round in 1..=bench.options.rounds {
        eprintln!("  round {round}");
        let mut measured = Vec::new();
        for second in [false, true] {
            let mut setup = bench.start(case).await;
            if second {
                let bus = setup.nats.as_ref().map(crate::support::nats::NatsServer::url);
                let mut replica = Server::convoke(&bench.program, Some(setup.server.database_url().to_owned()), bus);
                replica.start().await;
                setup.replicas.push(replica);
            }
            measured.push(setup.measure(CONNECTIONS, None, bench.options.seconds).await);
            for replica in &mut setup.replicas {
                replica.stop().await;
            }
            setup.server.stop().await;
        }
        let [one, two] = &measured[..] else { unreachable!("two were measured") };
        table.pair("events/s, together", Must::Nothing, one.rate, two.rate);
        table.pair("p99 ms, of the slower", Must::Nothing, one.p99_ms, two.p99_ms);
        table.pair("CPU µs per event: service", Must::Nothing, one.cpu.service, two.cpu.service);
        table.pair("CPU µs per event: database", Must::Nothing, one.cpu.database, two.cpu.database);
        table.pair("CPU µs per event: NATS", Must::Nothing, one.cpu.bus, two.cpu.bus);
        let behind = |of: &crate::run::Measured| of.drained_ms.unwrap_or(f64::NAN);
        table.pair("in the stream, ms after the last answer", Must::Nothing, behind(one), behind(two));
        if round == bench.options.rounds {
            table.note(format!("one: {}", one.shares()));
            table.note(format!("two: {}", two.shares()));
        }
    }
    tables.add(table);
}
