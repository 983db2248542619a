//! The simulated world as the platform's memory.

use convoke::simulate::{
    Simulation,
    platform::{Chronicle, Platform},
};
use tokio_util::sync::CancellationToken;

/// Meetings that nobody receives: every event is dropped.
pub async fn play(_platform: &Platform, chronicle: Option<Chronicle>) {
    let simulation = Simulation {
        meetings: 40,
        attendees: 4,
        drop: 1.0,
        seed: 7,
        handshake: false,
        chronicle,
        base: convoke::event::Millis::new(1_735_700_400_000),
        ..Simulation::new("http://127.0.0.1:9/", "1", "k".into())
    };
    simulation.run(CancellationToken::new()).await.expect("a run without deliveries");
}
