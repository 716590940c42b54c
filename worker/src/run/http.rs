//! The job's HTTP interface: `/metrics`, `/healthz`, `/readyz`, `/status`, `/top.json`, a page at `/`, and `/v1` for people.
//!
//! | path | answers | token |
//! |---|---|---|
//! | `/metrics` | all metrics, as text for Prometheus | yes |
//! | `/readyz` | 200 or 503, and why, as JSON | yes |
//! | `/status` | generation, processes, ticks and what is waited for, as JSON | yes |
//! | `/top.json` | the busiest keys and the newest incidents, as JSON | yes |
//! | `/v1/actions`, `/v1/actions/ID` | the newest actions on keys, or one of them, as JSON | a person's |
//! | `/v1/incidents`, `/v1/incidents/ID` | the newest incidents, or one of them, as JSON | a person's |
//! | POST `/v1/actions/VERB`, `/v1/actions/ID/VERB` | the action after the answer, as JSON | a person's |
//! | POST `/v1/incidents/ID/dismiss` | the incident after the answer, as JSON | a person's |
//! | POST `/v1/keys/KEY_ID/VERB` | the key after the answer, as JSON | a person's |
//! | POST `/v1/actions/ID/outcome` | 202: the report is taken | a gateway's |
//! | `/healthz` | 200 or 503, and why, as JSON | no: a supervisor needs no secret to see that a process lives |
//! | `/` | a page that shows `/status` to people | no: it holds nothing of the job, and asks for the token |
//! | `/incident#ID` | a page that shows an incident to people, and can't act | no: likewise |
//!
//! If a token is configured, every other path answers 401 without it, unknown paths too. Tokens are compared by all bytes
//! of their digests, so the time of a comparison reveals nothing. Only the token of a person in `[http.people]` opens `/v1`,
//! and no other path. A browser can't be made to send it: it is no cookie.
//!
//! An answer has the body `{"why":"..."}`, for `mute` `{"why":"...","for":"2h"}`. It is replied to once its tick is
//! committed: 200 with what it is about, 404 for what doesn't exist, 409 for one that is decided, with who decided when. An answer that isn't committed in
//! [`PATIENCE`] gets 202, and holds all the same.
//!
//! A gateway that took an action reports its outcome with the body `{"state":"done"}`, or
//! `{"state":"failed","why":"..."}`. Its token opens that path alone, which opens to no other token.
//!
//! **Limits.** A connection has one request. At most [`READ_BYTES`] of it are read, of which [`BODY_BYTES`] are a body. A
//! head of more than [`HEAD_BYTES`] is refused. A connection ends after [`ServerLimits::lifetime`], whatever its state.
//! At most [`ServerLimits::connections`] are served at once; further ones wait. A person has [`ANSWERS`] answers a
//! minute. Paths are compared with those above and never name a file. No answer and no log contains anything that a
//! client sent, but the reason of an answer, which its action shows.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::Listener;
use keytide_alerts::actions::Reply;
use keytide_config::{Http, Secret, duration_of};
use keytide_dataflow::model::time::DAY_MS;
use keytide_dataflow::{ActionId, AnswerTarget, GatewayOutcome, IncidentId, Revocation, Verb, WHY_BYTES};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep, timeout};

use super::actions::{ActionBoard, ActionPage, AnswerRefusal, BoardContent, DecidedPage};
use super::health::{health, job_status, readiness};
use super::metrics::{self, ExpositionFormat};
use super::sample::JobSample;
use super::top::LiveTop;
use crate::exit::{Exit, failure};
use crate::serve::auth::TokenHash;

/// Bytes of a request's path and headers.
const HEAD_BYTES: usize = 8 << 10;
/// Bytes of a request's body, at most.
const BODY_BYTES: usize = 16 << 10;
/// Bytes that are read of a connection, at most.
const READ_BYTES: usize = 2 * HEAD_BYTES + BODY_BYTES;
/// How long an answer waits for its tick, which is less than a connection's lifetime.
const PATIENCE: Duration = Duration::from_secs(8);
/// The longest mute: what is usual for longer is accepted.
const MUTE_MS: u64 = 31 * DAY_MS;
/// The most answers of a person in a minute.
const ANSWERS: u32 = 120;
/// The most reports of a gateway in a minute.
const REPORTS: u32 = 1_200;
const MINUTE: Duration = Duration::from_secs(60);

/// The page at `/`, which is the same for all jobs.
const PAGE: &str = include_str!("status.html");
/// The page of an incident, whose id stands behind `#` in its address.
const INCIDENT_PAGE: &str = include_str!("incident.html");
/// Lets the page do nothing but ask its own job.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                           connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Takes a sample of the job.
pub type Sampler = Arc<dyn Fn() -> JobSample + Send + Sync>;

/// Returns the busiest keys of the job.
pub type TopSource = Arc<dyn Fn() -> LiveTop + Send + Sync>;

/// Returns the actions of the job, if people may answer and this process publishes.
pub type ActionSource = Arc<dyn Fn() -> Option<ActionBoard> + Send + Sync>;

/// A port that is bound and not served yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    token: Option<TokenHash>,
    people: Vec<Person>,
    gateways: Vec<Person>,
    limits: ServerLimits,
}

/// A person who may answer, or a gateway that may report.
#[derive(Clone, Debug)]
struct Person {
    name: String,
    token: TokenHash,
    /// The most answers in a minute.
    most: u32,
    /// The beginning of the minute in which the last answer came, and the answers in it.
    answers: Arc<Mutex<(Option<Instant>, u32)>>,
}

#[derive(Clone, Copy, Debug)]
struct ServerLimits {
    connections: usize,
    lifetime: Duration,
}

const LIMITS: ServerLimits = ServerLimits { connections: 32, lifetime: Duration::from_secs(10) };

impl HttpServer {
    /// Binds the port before the job starts, so that a job never runs unwatched.
    ///
    /// # Errors
    /// If the port is in use, or the address isn't this machine's.
    pub fn bind(http: &Http) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(http.listen).map_err(|error| {
            let message = format!(
                "http.listen: can't listen on {}: {error}; choose an address of this machine and a port that nobody \
                 has, or leave [http] out",
                http.listen
            );
            failure(Exit::Usage, anyhow::anyhow!(message))
        })?;
        listener.set_nonblocking(true).context("preparing the port of [http] failed")?;
        let list = |names: &BTreeMap<String, Secret>, most: u32| {
            let of = |(name, token): (&String, &Secret)| Person {
                name: name.clone(),
                token: TokenHash::new(token),
                most,
                answers: Arc::default(),
            };
            names.iter().map(of).collect()
        };
        Ok(Self {
            listener,
            token: http.token.as_ref().map(TokenHash::new),
            people: list(&http.people, ANSWERS),
            gateways: list(&http.gateways, REPORTS),
            limits: LIMITS,
        })
    }

    /// Returns the address at which it listens.
    ///
    /// # Errors
    /// If the system doesn't say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers requests for ever, of the busiest keys from `top`, and of actions from `actions`.
    ///
    /// # Errors
    /// If the port can't be served.
    pub async fn serve(self, sampler: Sampler, top: TopSource, actions: ActionSource) -> io::Result<()> {
        let Self { listener, token, people, gateways, limits } = self;
        let listener = BoundedListener {
            listener: tokio::net::TcpListener::from_std(listener)?,
            connections: Arc::new(Semaphore::new(limits.connections)),
            lifetime: limits.lifetime,
        };
        let people = Arc::new(People { list: people, gateways, actions });
        axum::serve(listener, router(sampler, top, (token, people))).await
    }
}

/// Those who may answer or report, and about what.
struct People {
    list: Vec<Person>,
    gateways: Vec<Person>,
    actions: ActionSource,
}

impl People {
    /// Looks up what an answer is about.
    fn target(&self, find: impl FnOnce(&BoardContent) -> Option<AnswerTarget>) -> Option<AnswerTarget> {
        (self.actions)().and_then(|board| find(&*board.content()?))
    }
}

impl Person {
    /// Returns whether one more answer may come in this minute.
    fn may_answer(&self, now: Instant) -> bool {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (begun, count) = &mut *answers;
        if begun.is_none_or(|begun| now.duration_since(begun) >= MINUTE) {
            (*begun, *count) = (Some(now), 0);
        }
        *count += 1;
        *count <= self.most
    }
}

fn router(sampler: Sampler, top: TopSource, (token, people): (Option<TokenHash>, Arc<People>)) -> Router {
    let mut router = Router::new()
        .route("/metrics", get(answer_metrics))
        .route("/healthz", get(answer_health))
        .route("/readyz", get(answer_readiness))
        .route("/status", get(answer_status))
        .with_state(sampler)
        .route("/", get(|| page(PAGE)))
        .route("/top.json", get(move || async move { json(true, &top().page()) }));
    if !people.list.is_empty() {
        let of_people = Router::new()
            .route("/v1/actions", get(answer_actions))
            .route("/v1/actions/{target}", get(answer_action).post(answer_all))
            .route("/v1/actions/{target}/{verb}", post(answer_about))
            .route("/incident", get(|| page(INCIDENT_PAGE)))
            .route("/v1/incidents", get(answer_incidents))
            .route("/v1/incidents/{target}", get(answer_incident))
            .route("/v1/incidents/{target}/dismiss", post(answer_dismiss))
            .route("/v1/keys/{target}/{verb}", post(answer_key))
            .layer(DefaultBodyLimit::max(BODY_BYTES))
            .with_state(Arc::clone(&people));
        router = router.merge(of_people);
    }
    if !people.gateways.is_empty() {
        let of_gateways = Router::new()
            .route("/v1/actions/{target}/outcome", post(answer_outcome))
            .layer(DefaultBodyLimit::max(BODY_BYTES))
            .with_state(Arc::clone(&people));
        router = router.merge(of_gateways);
    }
    router
        .fallback(|| async {
            let paths = "there are /metrics, /healthz, /readyz, /status, /top.json, a page at / and, with [http.people], \
                         /v1/actions and /v1/incidents\n";
            (StatusCode::NOT_FOUND, paths)
        })
        .layer(from_fn_with_state((token, people), guard))
}

/// Checks every request for size and token, and adds headers to every answer.
async fn guard(
    State((token, people)): State<(Option<TokenHash>, Arc<People>)>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let is_open = matches!(path, "/healthz" | "/") || (path == "/incident" && !people.list.is_empty());
    let is_of_people = (path == "/v1" || path.starts_with("/v1/"))
        && !(people.list.is_empty() && people.gateways.is_empty());
    let is_outcome = is_of_people && path.starts_with("/v1/actions/") && path.ends_with("/outcome");
    let callers = if is_outcome { &people.gateways } else { &people.list };
    let headers = request.headers();
    // All are compared, so the time says nothing about which it is.
    let caller = callers.iter().fold(None, |found, person| match person.token.is_shown(headers) {
        true => Some(person),
        false => found,
    });
    let is_known = match is_of_people {
        true => caller.is_some(),
        false => is_open || token.is_none_or(|token| token.is_shown(headers)),
    };
    let head_bytes = request.uri().path().len()
        + request.uri().query().map_or(0, str::len)
        + headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    let mut response = if head_bytes > HEAD_BYTES {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response()
    } else if !is_known {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"keytide\"")];
        let text = match is_of_people {
            true if is_outcome => "show the token of the [[gateway]] as Authorization: Bearer\n",
            true => "show your token of [http.people] as Authorization: Bearer\n",
            false => "show the token of [http] as Authorization: Bearer\n",
        };
        (StatusCode::UNAUTHORIZED, challenge, text).into_response()
    } else {
        if let Some(person) = caller {
            request.extensions_mut().insert(person.clone());
        }
        next.run(request).await
    };
    let fixed = [
        (header::CONNECTION, "close"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn answer_metrics(State(sampler): State<Sampler>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = ExpositionFormat::accepted(accept);
    match metrics::text(sampler(), format) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn answer_health(State(sampler): State<Sampler>) -> Response {
    let health = health(&sampler());
    json(health.healthy, &health)
}

async fn answer_readiness(State(sampler): State<Sampler>) -> Response {
    let readiness = readiness(&sampler());
    json(readiness.ready, &readiness)
}

async fn answer_status(State(sampler): State<Sampler>) -> Response {
    json(true, &job_status(&sampler()))
}

async fn page(page: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, page).into_response()
}

/// The body of an answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerBody {
    why: String,
    /// How long a key is muted.
    #[serde(rename = "for")]
    duration: Option<String>,
}

fn refuse(status: StatusCode, error: &str) -> Response {
    with_status(status, &AnswerRefusal { error: error.to_owned(), state: None, by: None })
}

const NO_ACTION: &str = "there is no such action: the view revocations has the ids";
const NO_INCIDENT: &str = "there is no such incident: the view incidents has the ids";
const NO_VERB: &str = "of an action there are approve, dismiss, reinstate and revoke; of an incident dismiss; of a key mute \
                       and accept; of all actions pause and resume";
const ELSEWHERE: &str =
    "this process has no actions: it starts or ends, or follows another one, whose address /status names";

/// Shows what `show` makes of the board's content.
fn shown<T: Serialize>(
    people: &People,
    missing: &'static str,
    show: impl FnOnce(&BoardContent) -> Option<T>,
) -> Response {
    let Some(content) = (people.actions)().and_then(|board| board.content()) else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, ELSEWHERE);
    };
    match show(&content) {
        Some(page) => json(true, &page),
        None => refuse(StatusCode::NOT_FOUND, missing),
    }
}

async fn answer_actions(State(people): State<Arc<People>>) -> Response {
    shown(&people, NO_ACTION, |content| Some(content.actions.clone()))
}

async fn answer_action(State(people): State<Arc<People>>, Path(target): Path<String>) -> Response {
    shown(&people, NO_ACTION, |content| {
        content.actions.actions.iter().find(|action| action.action_id == target).cloned()
    })
}

async fn answer_incidents(State(people): State<Arc<People>>) -> Response {
    shown(&people, NO_INCIDENT, |content| Some(content.incidents()))
}

async fn answer_incident(State(people): State<Arc<People>>, Path(target): Path<String>) -> Response {
    shown(&people, NO_INCIDENT, |content| content.incident(IncidentId::parse(&target)?))
}

async fn answer_all(
    State(people): State<Arc<People>>,
    Extension(person): Extension<Person>,
    Path(verb): Path<String>,
    body: Bytes,
) -> Response {
    let verb = Verb::named(&verb).filter(|verb| verb.is_of_policy());
    let asked = verb.map(|verb| (verb, AnswerTarget::Policy));
    answered(&people, &person, asked.ok_or(NO_VERB), &body).await
}

async fn answer_about(
    State(people): State<Arc<People>>,
    Extension(person): Extension<Person>,
    Path((target, verb)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let asked = match Verb::named(&verb).filter(|verb| verb.is_of_actions()) {
        Some(verb) => {
            let target =
                ActionId::parse(&target).map(|id| people.target(|content| content.target_of_action(id)));
            target.flatten().map(|target| (verb, target)).ok_or(NO_ACTION)
        }
        None => Err(NO_VERB),
    };
    answered(&people, &person, asked, &body).await
}

/// The body of a gateway's report.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutcomeBody {
    state: OutcomeState,
    why: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutcomeState {
    Done,
    Failed,
}

/// Takes the report of a gateway about an action that is requested of it.
async fn answer_outcome(
    State(people): State<Arc<People>>,
    Extension(gateway): Extension<Person>,
    Path(target): Path<String>,
    body: Bytes,
) -> Response {
    let body: Result<OutcomeBody, _> = serde_json::from_slice(&body);
    let outcome = match &body {
        Ok(OutcomeBody { state: OutcomeState::Done, why: _ }) => GatewayOutcome::Done,
        Ok(OutcomeBody { state: OutcomeState::Failed, why: Some(why) }) if is_reason(why.trim()) => {
            GatewayOutcome::Failed(why.trim().to_owned())
        }
        _ => {
            let form = "the body must be JSON: {\"state\":\"done\"}, or {\"state\":\"failed\",\"why\":\"1 to 500 bytes \
                        of text in one line\"}";
            return refuse(StatusCode::BAD_REQUEST, form);
        }
    };
    if !gateway.may_answer(Instant::now()) {
        return refuse(StatusCode::TOO_MANY_REQUESTS, "a gateway has 1200 reports a minute");
    }
    let Some(board) = (people.actions)() else { return refuse(StatusCode::SERVICE_UNAVAILABLE, ELSEWHERE) };
    match ActionId::parse(&target) {
        Some(id) if board.report(&gateway.name, id, outcome) => {
            with_status(StatusCode::ACCEPTED, &serde_json::json!({ "taken": true }))
        }
        _ if board.content().is_none() => refuse(StatusCode::SERVICE_UNAVAILABLE, ELSEWHERE),
        _ => refuse(StatusCode::NOT_FOUND, "no such action is requested of this gateway"),
    }
}

/// Returns whether a text may be the reason of an answer or a report.
fn is_reason(why: &str) -> bool {
    !why.is_empty() && why.len() <= WHY_BYTES && !why.chars().any(char::is_control)
}

async fn answer_dismiss(
    State(people): State<Arc<People>>,
    Extension(person): Extension<Person>,
    Path(target): Path<String>,
    body: Bytes,
) -> Response {
    let target = IncidentId::parse(&target).map(|id| people.target(|content| content.target_of_incident(id)));
    let asked = target.flatten().map(|target| (Verb::Dismiss, target));
    answered(&people, &person, asked.ok_or(NO_INCIDENT), &body).await
}

async fn answer_key(
    State(people): State<Arc<People>>,
    Extension(person): Extension<Person>,
    Path((key_id, verb)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let verb = Verb::named(&verb).filter(|verb| verb.is_of_keys());
    let asked = match key_id.chars().any(char::is_control) {
        true => Err("a key is named as views name it"),
        false => verb.map(|verb| (verb, AnswerTarget::Key(key_id))).ok_or(NO_VERB),
    };
    answered(&people, &person, asked, &body).await
}

/// Hands an answer over, and replies once its tick is committed. What isn't there to be answered about is said last, so
/// that nobody asks for ids faster than they may answer.
async fn answered(
    people: &People,
    person: &Person,
    asked: Result<(Verb, AnswerTarget), &'static str>,
    body: &[u8],
) -> Response {
    let Ok(AnswerBody { why, duration }) = serde_json::from_slice(body) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "the body must be JSON: {\"why\":\"the reason\"}, and to mute a key {\"why\":\"the reason\",\"for\":\"2h\"}",
        );
    };
    let why = why.trim();
    if !is_reason(why) {
        return refuse(StatusCode::BAD_REQUEST, "why must be 1 to 500 bytes of text in one line");
    }
    if !person.may_answer(Instant::now()) {
        return refuse(StatusCode::TOO_MANY_REQUESTS, "a person has 120 answers a minute");
    }
    let Some(board) = (people.actions)() else { return refuse(StatusCode::SERVICE_UNAVAILABLE, ELSEWHERE) };
    let (verb, target) = match asked {
        Ok(asked) => asked,
        // An action or incident may be one of a tick that is made again.
        Err(_) if board.content().is_none() => return refuse(StatusCode::SERVICE_UNAVAILABLE, ELSEWHERE),
        Err(missing) => return refuse(StatusCode::NOT_FOUND, missing),
    };
    let mute_ms = match (verb, duration) {
        (Verb::Mute, Some(text)) => duration_of(&text).filter(|mute_ms| *mute_ms <= MUTE_MS),
        (Verb::Mute, None) => None,
        (_, duration) => duration.is_none().then_some(0),
    };
    let Some(mute_ms) = mute_ms else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "for is how long a key is muted, and belongs to mute alone: such as 2h, at most 31d; 0s ends a mute",
        );
    };
    let reply = board.answer(&person.name, (verb, target.clone(), mute_ms), why.to_owned());
    let Some(reply) = reply else { return refuse(StatusCode::SERVICE_UNAVAILABLE, ELSEWHERE) };
    match timeout(PATIENCE, reply).await {
        Ok(Ok(Reply::Accepted(row))) => {
            accepted(&board.content().unwrap_or_default(), verb, &target, row.as_ref())
        }
        Ok(Ok(Reply::Unknown)) => refuse(StatusCode::NOT_FOUND, NO_ACTION),
        Ok(Ok(Reply::Refused(reason))) => refuse(StatusCode::CONFLICT, reason),
        Ok(Ok(Reply::Decided { state, by })) => {
            let by = by.as_ref().map(DecidedPage::of);
            let error = "the action is decided".to_owned();
            let state = Some(state.name().to_owned());
            with_status(StatusCode::CONFLICT, &AnswerRefusal { error, state, by })
        }
        Ok(Err(_)) => {
            refuse(StatusCode::SERVICE_UNAVAILABLE, "the job ends; its next life may have the answer")
        }
        Err(_) => {
            refuse(StatusCode::ACCEPTED, "the answer is taken, and its tick isn't committed: look again")
        }
    }
}

/// Shows what an answer was about, after its tick.
fn accepted(content: &BoardContent, verb: Verb, target: &AnswerTarget, row: Option<&Revocation>) -> Response {
    match target {
        AnswerTarget::Policy => json(true, &serde_json::json!({ "paused": verb == Verb::Pause })),
        AnswerTarget::Key(key_id) => json(true, &content.key(key_id)),
        AnswerTarget::Incident(leak) => json(true, &content.incident(leak.incident)),
        AnswerTarget::Action(..) => json(true, &row.map(ActionPage::of_row)),
    }
}

fn json(is_well: bool, body: &impl Serialize) -> Response {
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    with_status(status, body)
}

fn with_status(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Bounds the number of connections, and the lifetime of each.
struct BoundedListener {
    listener: tokio::net::TcpListener,
    connections: Arc<Semaphore>,
    lifetime: Duration,
}

impl Listener for BoundedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = Arc::clone(&self.connections).acquire_owned().await;
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let end = Box::pin(sleep(self.lifetime));
        // The semaphore is never closed.
        (Connection { stream, end, left: READ_BYTES, _permit: permit.ok() }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when its lifetime is over or its client sends too much.
struct Connection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    /// Bytes that may still be read.
    left: usize,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn check_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_time(context)?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        match self.left.checked_sub(buffer.filled().len() - before) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Ok(()))
            }
            None => Poll::Ready(Err(io::ErrorKind::FileTooLarge.into())),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_time(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_time(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream as Client;

    use keytide_alerts::actions::Decided;
    use keytide_dataflow::model::KeyId;
    use keytide_dataflow::{Action, ActionInput, ActionState, GatewayReport, PersonAnswer, SuspectedLeak};

    use super::super::health::tests::well;
    use super::*;

    const TOKEN: &str = "a-token-of-the-test";

    /// Serves while `client` runs with the address.
    fn served(
        sample: JobSample,
        token: Option<&str>,
        limits: ServerLimits,
        client: impl FnOnce(SocketAddr) + Send + 'static,
    ) {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let http = Http { listen, token: token.map(Secret::new), ..Http::default() };
        served_with(sample, &http, limits, None, client);
    }

    /// Serves the same, with people and the actions of a board.
    fn served_with(
        sample: JobSample,
        http: &Http,
        limits: ServerLimits,
        board: Option<ActionBoard>,
        client: impl FnOnce(SocketAddr) + Send + 'static,
    ) {
        let server = HttpServer::bind(http).unwrap();
        let address = server.address().unwrap();
        let server = HttpServer { limits, ..server };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let serving = tokio::spawn(server.serve(
                Arc::new(move || sample.clone()),
                Arc::new(LiveTop::default),
                Arc::new(move || board.clone()),
            ));
            tokio::task::spawn_blocking(move || client(address)).await.unwrap();
            serving.abort();
        });
    }

    fn action(id: ActionId) -> Revocation {
        Revocation {
            id,
            key: KeyId(7),
            key_id: KeyId(7).to_string(),
            incident: IncidentId(9),
            action: Action::Suspend,
            state: ActionState::Requested,
            reason: "approved by alice: it leaked".to_owned(),
            at_ms: 0,
        }
    }

    /// Sends a request and reads to the connection's end; empty if it was cut.
    fn exchange(address: SocketAddr, request: &str) -> String {
        let mut client = Client::connect(address).unwrap();
        // The server may have had enough before all is sent.
        let _ = client.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    fn request(address: SocketAddr, method: &str, path: &str, headers: &str) -> String {
        exchange(address, &format!("{method} {path} HTTP/1.1\r\nHost: keytide\r\n{headers}\r\n"))
    }

    fn status(answer: &str) -> &str {
        answer.get("HTTP/1.1 ".len()..).and_then(|rest| rest.get(..3)).unwrap_or("none")
    }

    #[test]
    fn four_paths_are_answered() {
        served(well(), None, LIMITS, |address| {
            let metrics = request(address, "GET", "/metrics", "");
            assert_eq!(status(&metrics), "200");
            assert!(
                metrics.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
                "{metrics}"
            );
            assert!(metrics.contains("\nkeytide_ready 1\n") && !metrics.contains("# EOF"), "{metrics}");
            let open =
                request(address, "GET", "/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n");
            assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0;"), "{open}");
            assert!(open.ends_with("# EOF\n"), "{open}");
            let health = request(address, "GET", "/healthz", "");
            assert_eq!(status(&health), "200");
            assert!(health.contains("connection: close\r\n"), "{health}");
            assert!(health.contains("\r\n\r\n{\"healthy\":true,"), "{health}");
            let readiness = request(address, "GET", "/readyz", "");
            assert_eq!(status(&readiness), "200");
            assert!(readiness.ends_with("{\"ready\":true,\"reasons\":[]}\n"), "{readiness}");
            let top = request(address, "GET", "/top.json", "");
            assert_eq!(status(&top), "200");
            assert!(top.contains("content-type: application/json\r\n"), "{top}");
            assert!(top.ends_with("{\"windows\":[],\"incidents\":[]}\n"), "{top}");
        });
    }

    #[test]
    fn what_is_wrong_is_a_503_with_its_reasons() {
        let mut sample = well();
        sample.now += 1_000_000;
        served(sample, None, LIMITS, |address| {
            let health = request(address, "GET", "/healthz", "");
            assert_eq!(status(&health), "503");
            assert!(health.contains("\"reason\":\"the tick has been open for 1000 s: a reader"), "{health}");
            let readiness = request(address, "GET", "/readyz", "");
            assert_eq!(status(&readiness), "503");
            assert!(
                readiness.contains("\"reasons\":[\"the last published tick is 1002 s old"),
                "{readiness}"
            );
        });
    }

    #[test]
    fn only_reading_is_allowed() {
        served(well(), None, LIMITS, |address| {
            for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
                let answer = request(address, method, "/metrics", "Content-Length: 2\r\n\r\nhi");
                assert_eq!(status(&answer), "405", "{method}");
            }
            let head = request(address, "HEAD", "/readyz", "");
            assert_eq!(status(&head), "200");
            assert!(head.ends_with("\r\n\r\n"), "{head}");
        });
    }

    #[test]
    fn there_are_no_other_paths() {
        served(well(), None, LIMITS, |address| {
            for path in [
                "//",
                "/metrics/",
                "/top",
                "/top.json/",
                "/../etc/passwd",
                "/%2e%2e/etc/passwd",
                "/healthz/../metrics",
                "/nowhere",
            ] {
                assert_eq!(status(&request(address, "GET", path, "")), "404", "{path}");
            }
        });
    }

    #[test]
    fn a_token_is_demanded_of_all_that_shows_the_job() {
        served(well(), Some(TOKEN), LIMITS, |address| {
            let status_of =
                |path: &str, headers: &str| status(&request(address, "GET", path, headers)).to_owned();
            let wrong = [
                String::new(),
                "Authorization: Bearer\r\n".to_owned(),
                "Authorization: Bearer \r\n".to_owned(),
                format!("Authorization: Basic {TOKEN}\r\n"),
                format!("Authorization: Bearer {TOKEN}x\r\n"),
                format!("Authorization: Bearer {}\r\n", &TOKEN[1..]),
                format!("X-Authorization: Bearer {TOKEN}\r\n"),
            ];
            for headers in &wrong {
                for path in ["/metrics", "/readyz", "/top.json", "/nowhere"] {
                    assert_eq!(status_of(path, headers), "401", "{path} {headers}");
                }
                assert_eq!(status_of("/healthz", headers), "200", "{headers}");
                let page = request(address, "GET", "/", headers);
                assert!(
                    page.ends_with(PAGE) && page.contains("content-security-policy: default-src 'none'"),
                    "{page}"
                );
            }
            for scheme in ["Bearer", "bearer"] {
                let headers = format!("Authorization: {scheme} {TOKEN}\r\n");
                assert_eq!(status_of("/metrics", &headers), "200");
                assert_eq!(status_of("/nowhere", &headers), "404");
            }
            let refused = request(address, "GET", "/metrics", "");
            assert!(refused.contains("www-authenticate: Bearer"), "{refused}");
        });
    }

    /// Posts an answer with the token of a person.
    fn post_answer(address: SocketAddr, path: &str, token: &str, body: &str) -> String {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: keytide\r\nContent-Length: {length}\r\n");
        exchange(address, &format!("{head}Authorization: Bearer {token}\r\n\r\n{body}"))
    }

    /// A board whose answers are replied to by `reply`, and settings of two people.
    fn with_people(
        mut reply: impl FnMut(PersonAnswer) -> Option<Reply> + Send + 'static,
    ) -> (Http, ActionBoard) {
        let (inputs, received) = std::sync::mpsc::channel();
        let board = ActionBoard::new(|| 17, inputs, 0);
        let leak = SuspectedLeak { incident: IncidentId(9), key: KeyId(7) };
        let leaks = [(ActionId(7), leak)].into();
        board.publish(Some(Arc::new(BoardContent { leaks, ..BoardContent::default() })), Vec::new());
        let of_thread = board.clone();
        std::thread::spawn(move || {
            for input in received {
                let ActionInput::Answer(answer) = input else { continue };
                let request = answer.request;
                of_thread.publish(None, reply(answer).map(|reply| (request, reply)).into_iter().collect());
            }
        });
        let people = [("alice", "the-token-of-alice"), ("bob", "the-token-of-bob")];
        let people = people.map(|(name, token)| (name.to_owned(), Secret::new(token))).into();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        (Http { listen, token: Some(Secret::new(TOKEN)), people, ..Http::default() }, board)
    }

    #[test]
    fn only_people_answer_and_each_under_their_own_name() {
        let (http, board) = with_people(|answer| {
            assert_eq!((&*answer.why, answer.at_ms), ("it leaked", 17));
            let AnswerTarget::Action(id, leak) = answer.target else { panic!("{answer:?}") };
            assert_eq!((id, leak.incident, leak.key), (ActionId(7), IncidentId(9), KeyId(7)));
            let by = |who: &str| Some(Decided { verb: Verb::Approve, who: who.to_owned(), at_ms: 0 });
            Some(match (&*answer.who, answer.verb) {
                ("alice", Verb::Approve) => Reply::Accepted(Some(action(id))),
                ("alice", Verb::Revoke) => Reply::Refused("not now"),
                ("bob", Verb::Approve) => Reply::Decided { state: ActionState::Done, by: by("alice") },
                _ => Reply::Unknown,
            })
        });
        served_with(well(), &http, LIMITS, Some(board), |address| {
            let path = format!("/v1/actions/{:032x}", 7);
            let why = r#"{"why":" it leaked "}"#;
            let approve = format!("{path}/approve");
            // Neither the token of metrics nor none opens it, and a person's opens nothing else.
            for token in [TOKEN, "another-token", ""] {
                for asked in [
                    post_answer(address, &approve, token, why),
                    request(address, "GET", "/v1/actions", &format!("Authorization: Bearer {token}\r\n")),
                ] {
                    assert_eq!(status(&asked), "401", "{token}");
                }
            }
            let alice = "the-token-of-alice";
            let headers = format!("Authorization: Bearer {alice}\r\n");
            assert_eq!(status(&request(address, "GET", "/metrics", &headers)), "401");
            let page = request(address, "GET", "/v1/actions", &headers);
            assert!(
                page.ends_with("{\"paused\":null,\"on_probation\":[],\"muted\":[],\"actions\":[]}\n"),
                "{page}"
            );
            assert_eq!(status(&request(address, "GET", &path, &headers)), "404");
            assert_eq!(status(&request(address, "GET", &approve, &headers)), "405");

            let taken = post_answer(address, &approve, alice, why);
            assert_eq!(status(&taken), "200", "{taken}");
            assert!(
                taken.contains("\"state\":\"requested\"") && taken.contains("\"gateway\":null"),
                "{taken}"
            );
            let decided = post_answer(address, &approve, "the-token-of-bob", why);
            assert_eq!(status(&decided), "409");
            assert!(
                decided.contains(
                    r#""state":"done","by":{"verb":"approve","who":"alice","at":"1970-01-01T00:00:00Z"}"#
                ),
                "{decided}"
            );
            let refused = post_answer(address, &format!("{path}/revoke"), alice, why);
            assert!(status(&refused) == "409" && refused.contains("not now"), "{refused}");
            assert_eq!(status(&post_answer(address, &format!("{path}/dismiss"), alice, why)), "404");
        });
    }

    #[test]
    fn bad_answers_are_refused_before_they_reach_a_tick() {
        let (http, board) = with_people(|answer| panic!("{answer:?}"));
        served_with(well(), &http, LIMITS, Some(board), |address| {
            let alice = "the-token-of-alice";
            let path = format!("/v1/actions/{:032x}/approve", 7);
            let long = format!(r#"{{"why":"{}"}}"#, "x".repeat(WHY_BYTES + 1));
            for body in
                ["", "x", "{}", r#"{"why":""}"#, r#"{"why":"a\nb"}"#, r#"{"why":"a","who":"bob"}"#, &long]
            {
                assert_eq!(status(&post_answer(address, &path, alice, body)), "400", "{body}");
            }
            let mute = "/v1/keys/partner/mute";
            for body in [
                r#"{"why":"a"}"#,
                r#"{"why":"a","for":"2"}"#,
                r#"{"why":"a","for":"32d"}"#,
                r#"{"why":"a","for":7}"#,
            ] {
                assert_eq!(status(&post_answer(address, mute, alice, body)), "400", "{body}");
            }
            let with_time = r#"{"why":"a","for":"2h"}"#;
            assert_eq!(status(&post_answer(address, &path, alice, with_time)), "400");
            let huge = format!(r#"{{"why":"{}"}}"#, "x".repeat(BODY_BYTES));
            assert_eq!(status(&post_answer(address, &path, alice, &huge)), "413");
            let why = r#"{"why":"it leaked"}"#;
            for path in [
                "/v1/actions/approve",
                "/v1/actions/7/approve",
                "/v1/actions/0000000000000000000000000000000G/approve",
                "/v1/actions/+000000000000000000000000000000f/approve",
                "/v1/actions/00000000000000000000000000000007/pause",
                "/v1/actions/00000000000000000000000000000007/destroy",
                "/v1/actions/00000000000000000000000000000007/mute",
                "/v1/actions/00000000000000000000000000000008/approve",
                "/v1/incidents/00000000000000000000000000000009/dismiss",
                "/v1/keys/partner/approve",
                "/v1/keys/part%0Aner/accept",
                "/v1/nowhere",
            ] {
                assert_eq!(status(&post_answer(address, path, alice, why)), "404", "{path}");
            }
        });
    }

    #[test]
    fn a_key_is_muted_for_a_time_and_accepted_by_its_name() {
        let (http, board) = with_people(|answer| {
            let until_ms = if answer.verb == Verb::Mute { 17 + 7_200_000 } else { 0 };
            assert_eq!((answer.target, answer.until_ms), (AnswerTarget::Key("a/b".to_owned()), until_ms));
            Some(Reply::Accepted(None))
        });
        served_with(well(), &http, LIMITS, Some(board), |address| {
            for (verb, body) in
                [("mute", r#"{"why":"a load test","for":"2h"}"#), ("accept", r#"{"why":"ours"}"#)]
            {
                let path = format!("/v1/keys/a%2Fb/{verb}");
                let taken = post_answer(address, &path, "the-token-of-bob", body);
                assert_eq!(status(&taken), "200", "{taken}");
                assert!(
                    taken.ends_with("{\"key_id\":\"a/b\",\"muted_until\":null,\"incident\":null}\n"),
                    "{taken}"
                );
            }
        });
    }

    #[test]
    fn a_gateway_reports_what_is_requested_of_it_and_its_token_opens_nothing_else() {
        let (inputs, received) = std::sync::mpsc::channel();
        let board = ActionBoard::new(|| 17, inputs, 0);
        let requested = [(ActionId(7), "edge".to_owned()), (ActionId(8), "inner".to_owned())].into();
        board.publish(Some(Arc::new(BoardContent { requested, ..BoardContent::default() })), Vec::new());
        let (people, _) = with_people(|answer| panic!("{answer:?}"));
        let gateways = [("edge".to_owned(), Secret::new("the-token-of-edge"))].into();
        let http = Http { gateways, ..people };
        served_with(well(), &http, LIMITS, Some(board), move |address| {
            let path = |id: u128| format!("/v1/actions/{id:032x}/outcome");
            let done = r#"{"state":"done"}"#;
            let edge = "the-token-of-edge";
            for token in [TOKEN, "the-token-of-alice", "another", ""] {
                assert_eq!(status(&post_answer(address, &path(7), token, done)), "401", "{token}");
            }
            let headers = format!("Authorization: Bearer {edge}\r\n");
            for (method, page) in
                [("GET", "/metrics"), ("GET", "/v1/actions"), ("GET", "/v1"), ("POST", "/v1/actions/pause")]
            {
                assert_eq!(status(&request(address, method, page, &headers)), "401", "{page}");
            }
            assert_eq!(status(&request(address, "GET", &path(7), &headers)), "405");
            let approve = format!("/v1/actions/{:032x}/approve", 7);
            assert_eq!(status(&post_answer(address, &approve, edge, r#"{"why":"x"}"#)), "401");
            for body in [
                "",
                "{}",
                r#"{"state":"failed"}"#,
                r#"{"state":"gone"}"#,
                r#"{"state":"failed","why":"a\nb"}"#,
            ] {
                assert_eq!(status(&post_answer(address, &path(7), edge, body)), "400", "{body}");
            }
            for other in [path(8), path(9), "/v1/actions/x/outcome".to_owned()] {
                assert_eq!(status(&post_answer(address, &other, edge, done)), "404", "{other}");
            }
            let failed = r#"{"state":"failed","why":" it is gone "}"#;
            for body in [done, failed] {
                let taken = post_answer(address, &path(7), edge, body);
                assert!(status(&taken) == "202" && taken.ends_with("{\"taken\":true}\n"), "{taken}");
            }
            let report = |failure: Option<&str>| {
                let outcome =
                    failure.map_or(GatewayOutcome::Done, |why| GatewayOutcome::Failed(why.to_owned()));
                let (action, gateway) = (ActionId(7), "edge".to_owned());
                ActionInput::Report(GatewayReport { action, gateway, outcome, at_ms: 17 })
            };
            assert_eq!(received.try_iter().collect::<Vec<_>>(), [report(None), report(Some("it is gone"))]);
        });
    }

    #[test]
    fn a_process_without_actions_says_so_and_a_person_has_so_many_answers() {
        let (http, _) = with_people(|_| None);
        served_with(well(), &http, LIMITS, None, |address| {
            let why = r#"{"why":"storm"}"#;
            let status_of = |token| status(&post_answer(address, "/v1/actions/pause", token, why)).to_owned();
            let alice: Vec<String> = (0..=ANSWERS).map(|_| status_of("the-token-of-alice")).collect();
            assert!(alice[..ANSWERS as usize].iter().all(|status| status == "503"), "{alice:?}");
            assert_eq!(alice.last().map(String::as_str), Some("429"));
            assert_eq!(status_of("the-token-of-bob"), "503");
        });
    }

    #[test]
    fn requests_are_bounded() {
        served(well(), None, LIMITS, |address| {
            let with = |bytes: usize| format!("X-Long: {}\r\n", "x".repeat(bytes));
            assert_eq!(status(&request(address, "GET", "/healthz", &with(HEAD_BYTES - 100))), "200");
            assert_eq!(status(&request(address, "GET", "/healthz", &with(HEAD_BYTES))), "431");
            assert_eq!(status(&request(address, "GET", &format!("/{}", "x".repeat(HEAD_BYTES)), "")), "431");
            let cut = request(address, "GET", "/healthz", &with(2 * READ_BYTES));
            assert!(!cut.contains("healthy"), "{cut}");
            let many: String = (0..500).map(|n| format!("X-{n}: 1\r\n")).collect();
            assert_ne!(status(&request(address, "GET", "/healthz", &many)), "200");
        });
    }

    #[test]
    fn what_a_client_sends_is_never_sent_back() {
        served(well(), Some(TOKEN), LIMITS, |address| {
            let canary = "key-canary-5f0c";
            for path in ["/metrics", "/healthz", "/readyz", "/top.json", "/nowhere"] {
                let headers = format!("Authorization: Bearer {canary}\r\napikey: {canary}\r\n");
                let answer = request(address, "GET", &format!("{path}?apikey={canary}"), &headers);
                assert!(status(&answer) != "none" && !answer.contains(canary), "{answer}");
            }
        });
    }

    #[test]
    fn a_silent_client_is_left_and_keeps_nobody_out() {
        let limits = ServerLimits { connections: 1, lifetime: Duration::from_millis(20) };
        served(well(), None, limits, |address| {
            let mut silent = Client::connect(address).unwrap();
            silent.write_all(b"GET /healthz HT").unwrap();
            // It is served once the only connection is free again. Its own lifetime is short, so it may take two tries.
            let is_served = (0..1_000).any(|_| status(&request(address, "GET", "/healthz", "")) == "200");
            assert!(is_served);
            let mut rest = Vec::new();
            let _ = silent.read_to_end(&mut rest);
            assert!(!String::from_utf8(rest).unwrap().contains("healthy"));
        });
    }

    #[test]
    fn a_port_that_somebody_has_is_a_mistake_of_the_configuration() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = taken.local_addr().unwrap();
        let error = HttpServer::bind(&Http { listen, ..Http::default() }).unwrap_err();
        assert_eq!(crate::exit::classify(&error), Exit::Usage);
        let message = error.to_string();
        assert!(message.starts_with(&format!("http.listen: can't listen on {listen}: ")), "{message}");
    }
}
