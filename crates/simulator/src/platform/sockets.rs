//! The WebSockets of running meetings: heartbeats, subscriptions, and what is told.

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::live::{self, Out};
use super::memory::Shared;

/// Serves one WebSocket until it ends. Without a number it is closed at once.
pub(super) async fn serve(shared: &Shared, upgraded: Upgraded, number: Option<String>) {
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    let Some(number) = number else { return drop(socket.close(None).await) };
    let (send, mut out) = mpsc::unbounded_channel();
    let patience = shared.options.heartbeat_timeout;
    let mut closes_at = Instant::now() + patience;
    loop {
        let frozen = live::is_frozen(&shared.state().live, &number);
        tokio::select! {
            () = tokio::time::sleep_until(closes_at) => return drop(socket.close(None).await),
            Some(out) = out.recv() => match out {
                Out::Text(text) => if socket.send(Message::text(text)).await.is_err() { return },
                Out::Close => return drop(socket.close(None).await),
                Out::Cut => return,
            },
            received = socket.next() => {
                let Some(Ok(message)) = received else { return };
                let (true, Ok(text)) = (!frozen, message.to_text()) else { continue };
                let Ok(asked) = serde_json::from_str::<Value>(text) else { continue };
                let mut answers = Vec::new();
                match asked["action"].as_str() {
                    Some("HeartBeat") => {
                        closes_at = Instant::now() + patience;
                        answers.push(json!({ "sequence": asked["sequence"], "action": "HeartBeat" }).to_string());
                    }
                    Some("Subscribe") => {
                        let now = shared.now();
                        answers = live::subscribe(&mut shared.state().live, &number, &asked, &send, now);
                    },
                    Some("ConfControl") => answers.push(json!({
                        "sequence": asked["sequence"], "action": "ConfControl", "data": { "returnCode": 0, "returnDesc": "SUCCESS" },
                    }).to_string()),
                    _ => {}
                }
                for answer in answers {
                    if socket.send(Message::text(answer)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}
