//! The servers with which Convoke is compared. This program runs itself as one of them, so that each has its own
//! process, like the service.
//!
//! All of them use Convoke's own listener: only the handler differs.

use std::future::IntoFuture as _;
use std::sync::Arc;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishAckFuture, PublishError};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::{any, get};
use convoke::http::server::{self, ClientSources, Connections, Failures, ListenerOptions, Shutdown};
use convoke::relay::subject;
use convoke_core::event::{Content, Delivery, Event, Subscriber, Verified};
use convoke_core::time::{Clock, Millis};
use convoke_core::verify::{self, Keyring};
use secrecy::SecretString;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::plain;
use crate::servers::PATH;

/// The same as Convoke's default.
const MAX_BODY: usize = 256 << 10;

/// Connections to PostgreSQL, a usual number for such services.
const POOL: u32 = 16;

/// Events that the batched peer inserts at once, at most.
const MAX_BATCH: usize = 256;

fn setting(name: &str) -> String {
    std::env::var(format!("CONVOKE_{name}")).unwrap_or_default()
}

fn keyring() -> Arc<Keyring> {
    let subscriber =
        Subscriber { app_id: setting("APP_ID").into(), keys: vec![SecretString::from(setting("APP_KEY"))], name: None };
    Arc::new(Keyring::new(&[subscriber]))
}

/// Runs one of them until it is killed.
pub async fn run(which: &str) {
    let router = match which {
        "bare" => Router::new().route(PATH, any(bare)),
        "baseline" => Router::new().route(PATH, any(baseline)).with_state(keyring()),
        "batched" => Router::new().route(PATH, any(batched)).with_state(Batched::open().await),
        "naive" => Router::new().route(PATH, any(naive)).with_state(Arc::new(Naive::open().await)),
        other => panic!("there is no {other}"),
    };
    let listener = TcpListener::bind(setting("LISTEN")).await.expect("a free port");
    let router = router.route("/readyz", get(|| async { StatusCode::OK }));
    let terms = ListenerOptions::events(
        std::time::Duration::from_secs(90),
        None,
        Failures::new("events", None),
        ClientSources::default(),
    );
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("a signal");
    tokio::select! {
        () = server::serve(listener, terms, router, Shutdown::default(), Connections::new(8192, None)) => {}
        _ = terminate.recv() => {}
    }
}

async fn whole(body: Body) -> Result<Bytes, StatusCode> {
    to_bytes(body, MAX_BODY).await.map_err(|_| StatusCode::BAD_REQUEST)
}

/// L0: reads the body and responds. This is the load generator's ceiling.
async fn bare(request: Request) -> StatusCode {
    whole(request.into_body()).await.map_or_else(|status| status, |_| StatusCode::OK)
}

/// L1: what every receiver of these events must do, and nothing else. All ratios are relative to this.
async fn baseline(State(keyring): State<Arc<Keyring>>, request: Request) -> StatusCode {
    match whole(request.into_body()).await {
        Ok(body) if verify::authenticate(&body, &keyring).is_ok() => StatusCode::OK,
        Ok(_) => StatusCode::UNAUTHORIZED,
        Err(status) => status,
    }
}

/// A new stream on the bus.
async fn stream() -> Context {
    let client = async_nats::connect(setting("NATS_URL")).await.expect("NATS");
    let jetstream = async_nats::jetstream::new(client);
    let config = async_nats::jetstream::stream::Config {
        name: "MEETINGS".to_owned(),
        subjects: vec!["meetings.>".to_owned()],
        ..Default::default()
    };
    jetstream.get_or_create_stream(config).await.expect("a stream");
    jetstream
}

/// Hands a message to the bus; what it returns waits for the acknowledgement.
async fn publish(jetstream: &Context, event: &Event) -> Result<PublishAckFuture, PublishError> {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Msg-Id", event.event_id.to_string());
    let subject = subject("meetings", &event.subscriber_id, &event.event, event.meeting.id.as_deref());
    jetstream.publish_with_headers(subject, headers, Bytes::copy_from_slice(event.event_info.as_bytes())).await
}

/// The event of a genuine delivery.
async fn verified(keyring: &Keyring, request: Request) -> Result<Verified, StatusCode> {
    let body = whole(request.into_body()).await?;
    let delivery = Delivery { received_at: Clock::System.now(), request_id: None, traceparent: None };
    let checked = verify::verify(&body, keyring, &delivery).map_err(|_| StatusCode::UNAUTHORIZED)?;
    Ok(checked.verified)
}

/// The obvious implementation: an `INSERT` on a pool, an awaited publish and the response, for each request separately.
struct Naive {
    keyring: Arc<Keyring>,
    pool: PgPool,
    jetstream: Context,
}

impl Naive {
    async fn open() -> Self {
        let url = setting("DATABASE_URL");
        plain::migrate(&url).await;
        let pool = PgPoolOptions::new().max_connections(POOL).connect(&url).await.expect("PostgreSQL");
        Self { keyring: keyring(), pool, jetstream: stream().await }
    }

    async fn insert(&self, event: &Event) -> Result<(), sqlx::Error> {
        let (meeting, attendee) = (&event.meeting, &event.attendee);
        sqlx::query(
            "INSERT INTO events (event_id, subscriber_id, event, occurred_at, received_at, meeting_id, meeting_uuid,
                 meeting_cycle_sub_id, user_uuid, user_agent, account, participant_id, display_name, role, call_number,
                 join_time, left_time, source, deliveries, last_delivered_at, event_info)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, 'push', 1, $5, $18)
             ON CONFLICT (event_id) DO UPDATE SET deliveries = events.deliveries + 1",
        )
        .bind(event.event_id.uuid())
        .bind(&*event.subscriber_id)
        .bind(&*event.event)
        .bind(event.occurred_at.date_time())
        .bind(event.received_at.date_time())
        .bind(meeting.id.as_deref())
        .bind(meeting.uuid.as_deref())
        .bind(meeting.cycle_sub_id.as_deref())
        .bind(attendee.user_uuid.as_deref())
        .bind(attendee.user_agent.as_deref())
        .bind(attendee.account.as_deref())
        .bind(attendee.participant_id.as_deref())
        .bind(attendee.display_name.as_deref())
        .bind(attendee.role.as_deref())
        .bind(attendee.call_number.as_deref())
        .bind(attendee.join_time.map(Millis::date_time))
        .bind(attendee.left_time.map(Millis::date_time))
        .bind(&*event.event_info)
        .execute(&self.pool)
        .await
        .map(drop)
    }
}

async fn naive(State(naive): State<Arc<Naive>>, request: Request) -> StatusCode {
    let verified = match verified(&naive.keyring, request).await {
        Ok(verified) => verified,
        Err(status) => return status,
    };
    let Content::Event(event) = verified.content() else { return StatusCode::OK };
    if naive.insert(event).await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let Ok(acknowledgement) = publish(&naive.jetstream, event).await else { return StatusCode::SERVICE_UNAVAILABLE };
    if acknowledgement.await.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// What a good engineer would write in a day: a task that inserts what gathered while it was busy with one statement,
/// publishes it, and answers. Retries are not counted, and what was stored when the process dies is not published.
struct Batched {
    keyring: Arc<Keyring>,
    queue: mpsc::Sender<(Verified, oneshot::Sender<StatusCode>)>,
}

impl Batched {
    async fn open() -> Arc<Self> {
        let url = setting("DATABASE_URL");
        plain::migrate(&url).await;
        let mut connection = PgConnection::connect(&url).await.expect("PostgreSQL");
        let jetstream = stream().await;
        let (queue, mut gathered) = mpsc::channel::<(Verified, oneshot::Sender<StatusCode>)>(MAX_BATCH);
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while gathered.recv_many(&mut batch, MAX_BATCH).await > 0 {
                let events: Vec<&Event> = batch
                    .iter()
                    .filter_map(|(verified, _)| match verified.content() {
                        Content::Event(event) => Some(event),
                        _ => None,
                    })
                    .collect();
                let status = match keep(&mut connection, &jetstream, &events).await {
                    Ok(()) => StatusCode::OK,
                    Err(_) => StatusCode::SERVICE_UNAVAILABLE,
                };
                for (_, answer) in batch.drain(..) {
                    // Who has hung up gets no answer.
                    let _ = answer.send(status);
                }
            }
        });
        Arc::new(Self { keyring: keyring(), queue })
    }
}

async fn keep(connection: &mut PgConnection, jetstream: &Context, events: &[&Event]) -> anyhow::Result<()> {
    plain::insert_postgres(connection, events).await?;
    let mut acknowledgements = Vec::new();
    for event in events {
        acknowledgements.push(publish(jetstream, event).await?.into_future());
    }
    futures_util::future::try_join_all(acknowledgements).await?;
    Ok(())
}

async fn batched(State(batched): State<Arc<Batched>>, request: Request) -> StatusCode {
    let verified = match verified(&batched.keyring, request).await {
        Ok(verified) => verified,
        Err(status) => return status,
    };
    let (answer, answered) = oneshot::channel();
    if batched.queue.send((verified, answer)).await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    answered.await.unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
}
