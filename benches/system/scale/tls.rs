//! TLS on persistent connections, compared with plain HTTP.

use super::Tables;
use crate::comparison::{Must, Table};
use crate::run::{Bench, Case};

const CONNECTIONS: usize = 256;

pub(super) async fn run(bench: &mut Bench, tables: &mut Tables) {
    let mut table = Table::new(format!("TLS, {CONNECTIONS} keep-alive connections"), "plain", "TLS");
    for round in 1..=bench.options.rounds {
        for case in [Case::SQLITE, Case::POSTGRES, Case::POSTGRES_BUS] {
            eprintln!("  {}, round {round}", case.name());
            let mut measured = Vec::new();
            for tls in [false, true] {
                let mut setup = bench.start(case).await;
                if tls {
                    setup.server.stop().await;
                    setup.server.use_tls();
                    setup.server.start().await;
                }
                measured.push(setup.measure(CONNECTIONS, None, bench.options.seconds).await);
                setup.server.stop().await;
            }
            let [plain, tls] = &measured[..] else { unreachable!("two were measured") };
            let name = case.name();
            table.pair(&format!("{name}: events/s"), Must::AtLeast(0.75), plain.rate, tls.rate);
            let cpu = |part: &str| format!("{name}: CPU µs per event, {part}");
            table.pair(&cpu("service"), Must::Nothing, plain.cpu.service, tls.cpu.service);
            table.pair(&cpu("load"), Must::Nothing, plain.cpu.load, tls.cpu.load);
            if round == bench.options.rounds {
                table.note(format!("{name}, plain: {}", plain.shares()));
                table.note(format!("{name}, TLS: {}", tls.shares()));
            }
        }
    }
    tables.add(table);
}
