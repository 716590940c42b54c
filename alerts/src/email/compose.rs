//! The composer makes mails of transitions.

use std::path::Path;
use std::time::{Duration, SystemTime};

use keytide_config::Language;
use keytide_dataflow::incident_row::TransitionJson;
use keytide_dataflow::model::hex;
use lettre::message::header::{ContentDisposition, ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::{Message, message::header::ContentId};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::action::{ActionMailView, GatewayMailView};
use super::chart::{Chart, chart};
use super::digest::{DailyView, DigestView, LISTED, StormDigest};
use super::guide::Guide;
use super::quota::{QuotaDigestView, QuotaMailView};
use super::templates::{MailTemplates, TemplateError};
use super::view::IncidentView;
use super::words::Wording;
use super::{Audience, PlannedAction, samples};
use crate::actions::{ActionNotice, GatewayNotice};
use crate::quota::QuotaNoticeRow;

/// The end of Message-IDs of mails about quotas, in place of an [`Audience`].
const CUSTOMER: &str = "customer";

/// Why a mail can't be composed.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// A template that comes with the program is broken.
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("the mail can't be built: {0}")]
    Message(#[from] lettre::error::Error),
    #[error("a digest of nothing")]
    Empty,
}

/// The input of a mail about one transition.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    pub transition: &'a TransitionJson,
    pub planned: Option<&'a PlannedAction>,
    pub audience: Audience,
    pub language: Language,
    pub to: &'a Mailbox,
    /// The date of the mail, in milliseconds since 1970.
    pub date_ms: u64,
}

/// The input of a mail about a change of an action.
#[derive(Clone, Copy, Debug)]
pub struct ActionLetter<'a> {
    pub notice: &'a ActionNotice,
    pub audience: Audience,
    pub language: Language,
    pub to: &'a Mailbox,
    /// The date of the mail, in milliseconds since 1970.
    pub date_ms: u64,
}

/// The input of a mail about a threshold of a quota.
#[derive(Clone, Copy, Debug)]
pub struct QuotaLetter<'a> {
    pub row: &'a QuotaNoticeRow,
    pub language: Language,
    pub to: &'a Mailbox,
    /// The date of the mail, in milliseconds since 1970.
    pub date_ms: u64,
}

/// A composed mail to one recipient.
#[derive(Clone, Debug)]
pub struct Mail {
    pub message: Message,
    /// Has the form `<incident.seq.audience@domain>`; it is the same whenever the mail is composed.
    pub message_id: String,
    /// A name for a file, which sorts by date and names the incident.
    pub name: String,
    /// The subject without the encoding of headers.
    pub subject: String,
    pub text: String,
    pub html: String,
    pub chart: Option<Vec<u8>>,
    /// The error of a user's template, in whose place the bundled one was used.
    pub failed_template: Option<TemplateError>,
}

/// Composes mails from one sender, with bundled or own templates.
pub struct Composer {
    from: Mailbox,
    reply_to: Option<Mailbox>,
    guide: Guide,
    own: Option<MailTemplates>,
    bundled: MailTemplates,
}

impl std::fmt::Debug for Composer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Composer").field("from", &self.from).field("own", &self.own.is_some()).finish()
    }
}

/// The text and HTML of a mail.
struct Rendered {
    text: String,
    html: String,
    failed: Option<TemplateError>,
}

/// The headers that differ between mails.
struct MailHeaders<'a> {
    to: &'a Mailbox,
    date_ms: u64,
    subject: String,
    /// The left side of the Message-ID.
    local: String,
    /// The left side of the Message-ID that began the thread, if that is another mail.
    thread: Option<String>,
    more: Vec<(&'static str, String)>,
}

impl<'a> MailHeaders<'a> {
    /// Returns the headers of a mail that belongs to no incident's thread. `kind` stands in place of a change.
    fn alone(kind: &str, subject: &str, local: String, to: &'a Mailbox, date_ms: u64) -> Self {
        let more = vec![("X-Keytide-Change", kind.to_owned())];
        Self { to, date_ms, subject: subject.to_owned(), local, thread: None, more }
    }
}

impl Composer {
    /// Creates a composer with a sender. A folder's templates replace the bundled ones of the same name.
    ///
    /// # Errors
    /// If a file of the folder isn't named like a template, or fails with sample incidents.
    pub fn new(from: Mailbox, templates: Option<&Path>) -> Result<Self, TemplateError> {
        let own = templates.map(MailTemplates::with_folder).transpose()?;
        let bundled = MailTemplates::bundled()?;
        let composer = Self { from, reply_to: None, guide: Guide::default(), own, bundled };
        composer.check()?;
        Ok(composer)
    }

    /// Returns a composer whose mails have this guide.
    #[must_use]
    pub fn guided(self, guide: Guide) -> Self {
        Self { guide, ..self }
    }

    /// Returns a composer to whose mails answers go to this address.
    #[must_use]
    pub fn replied_to(self, reply_to: Option<Mailbox>) -> Self {
        Self { reply_to, ..self }
    }

    /// Fills every template with sample incidents of every kind.
    fn check(&self) -> Result<(), TemplateError> {
        let templates = self.own.as_ref().unwrap_or(&self.bundled);
        let (transitions, planned) = (samples::all(), samples::planned());
        let many: Vec<&TransitionJson> = transitions.iter().cycle().take(LISTED + 10).collect();
        let actions = samples::actions();
        let many_actions: Vec<&ActionNotice> = actions.iter().cycle().take(LISTED + 10).collect();
        let guides = [Guide::default(), samples::guide()];
        for language in Wording::ALL {
            for audience in [Audience::Security, Audience::Owner] {
                for transition in &transitions {
                    for (planned, guide) in [None, Some(&planned)].into_iter().zip(&guides) {
                        let mut view = IncidentView::new(transition, planned, audience, language, guide);
                        fill(templates, audience.name(), language, &view)?;
                        (view.chart, view.chart_id) = (Some("chart".to_owned()), Some("id".to_owned()));
                        fill(templates, audience.name(), language, &view)?;
                    }
                }
                for (guide, count) in guides.iter().zip([1, many.len()]) {
                    let incidents = many[..count].iter().map(|each| (*each, Some(&planned))).collect();
                    let of_actions = many_actions[..count].to_vec();
                    let digest =
                        StormDigest { incidents, actions: of_actions, held: 2, ..StormDigest::default() };
                    let alone = StormDigest { incidents: Vec::new(), held: 0, ..digest.clone() };
                    for digest in [digest, alone] {
                        let view = DigestView::new(&digest, audience, language, guide);
                        fill(templates, "digest", language, &view)?;
                    }
                }
                for (notice, guide) in
                    actions.iter().flat_map(|notice| guides.iter().map(move |guide| (notice, guide)))
                {
                    let view = ActionMailView::new(notice, audience, language, guide);
                    fill(templates, "action", language, &view)?;
                }
            }
            for (notice, guide) in samples::gateways().iter().zip(guides.iter().cycle()) {
                fill(templates, "gateway", language, &GatewayMailView::new(notice, language, guide))?;
            }
            let quotas = samples::quotas();
            for row in &quotas {
                fill(templates, "quota", language, &QuotaMailView::new(row, language))?;
            }
            for (count, more) in [(1, 0), (quotas.len(), 7)] {
                let rows: Vec<&QuotaNoticeRow> = quotas[..count].iter().collect();
                fill(templates, "quotas", language, &QuotaDigestView::new(&rows, more, language))?;
            }
            for count in [1, many.len()] {
                fill(templates, "daily", language, &DailyView::new(&many[..count], 0, language))?;
            }
            for guide in &guides {
                fill(templates, "test", language, &test_view(language, guide))?;
            }
        }
        Ok(())
    }

    /// Composes the mail about one transition.
    ///
    /// # Errors
    /// If a bundled template fails.
    pub fn incident(&self, letter: &Letter<'_>) -> Result<Mail, ComposeError> {
        let Letter { transition, planned, audience, to, date_ms, .. } = *letter;
        let language = Wording(letter.language);
        let chart = chart(transition, language);
        let local = |seq: u32| format!("{}.{seq}.{}", word(&transition.incident_id), audience.name());
        let mut view = IncidentView::new(transition, planned, audience, language, &self.guide);
        if let Some(chart) = &chart {
            view.chart = Some(chart.alt.clone());
            view.chart_id = Some(self.id(&format!("chart.{}", local(transition.seq))));
        }
        let headers = MailHeaders {
            to,
            date_ms,
            subject: view.subject.clone(),
            local: local(transition.seq),
            thread: (transition.seq > 0).then(|| local(0)),
            more: vec![
                ("X-Keytide-Incident", word(&transition.incident_id)),
                ("X-Keytide-Change", transition.transition.name().to_owned()),
                ("X-Keytide-Level", word(&transition.level)),
            ],
        };
        let rendered = self.render(audience.name(), language, &view)?;
        self.mail(headers, rendered, chart.zip(view.chart_id))
    }

    /// Composes the mail about a change of an action, in the thread of its incident.
    ///
    /// # Errors
    /// If a bundled template fails.
    pub fn action(&self, letter: &ActionLetter<'_>) -> Result<Mail, ComposeError> {
        let ActionLetter { notice, audience, to, date_ms, .. } = *letter;
        let language = Wording(letter.language);
        let view = ActionMailView::new(notice, audience, language, &self.guide);
        let headers = MailHeaders {
            to,
            date_ms,
            subject: view.subject.clone(),
            local: format!("action-{}.{}.{}", notice.id, notice.seq, audience.name()),
            thread: Some(format!("{}.0.{}", notice.incident, audience.name())),
            more: vec![
                ("X-Keytide-Incident", notice.incident.to_string()),
                ("X-Keytide-Change", format!("{}-{}", notice.action.name(), notice.state.name())),
            ],
        };
        let rendered = self.render("action", language, &view)?;
        self.mail(headers, rendered, None)
    }

    /// Composes security's mail about a gateway that is late. Those of one time form a thread.
    ///
    /// # Errors
    /// If a bundled template fails.
    pub fn gateway(
        &self,
        notice: &GatewayNotice,
        language: Language,
        to: &Mailbox,
        date_ms: u64,
    ) -> Result<Mail, ComposeError> {
        let language = Wording(language);
        let view = GatewayMailView::new(notice, language, &self.guide);
        // A name may have characters that an id can't have.
        let name = hex(&Sha256::digest(notice.gateway.as_deref().unwrap_or_default())[..8]);
        let local =
            |count: u32| format!("gateway-{name}-{}.{count}.{}", notice.first, Audience::Security.name());
        let headers = MailHeaders {
            to,
            date_ms,
            subject: view.subject.clone(),
            local: local(notice.count),
            thread: (notice.count > 0).then(|| local(0)),
            more: vec![("X-Keytide-Change", "gateway-late".to_owned())],
        };
        let rendered = self.render("gateway", language, &view)?;
        self.mail(headers, rendered, None)
    }

    /// Composes the mail to a subscription's contacts about a quota. Those of one quota and period form a thread, to
    /// whose root, which is no mail, each of them refers: any threshold may be the first one that is told.
    ///
    /// # Errors
    /// If a bundled template fails.
    pub fn quota(&self, letter: &QuotaLetter<'_>) -> Result<Mail, ComposeError> {
        let QuotaLetter { row, to, date_ms, .. } = *letter;
        let language = Wording(letter.language);
        let view = QuotaMailView::new(row, language);
        let local = |of: &str| format!("quota-{}.{of}.{CUSTOMER}", row.quota_id());
        let headers = MailHeaders {
            thread: Some(local("all")),
            ..MailHeaders::alone("quota", &view.subject, local(&row.seq.to_string()), to, date_ms)
        };
        let rendered = self.render("quota", language, &view)?;
        self.mail(headers, rendered, None)
    }

    /// Composes one mail about many quotas. It lists the 50 of which most is used, and counts the others; `more` further
    /// notices are only known by number.
    ///
    /// # Errors
    /// If there are none, or if a bundled template fails.
    pub fn quotas(
        &self,
        rows: &[&QuotaNoticeRow],
        more: u64,
        language: Language,
        to: &Mailbox,
        date_ms: u64,
    ) -> Result<Mail, ComposeError> {
        if rows.is_empty() {
            return Err(ComposeError::Empty);
        }
        let language = Wording(language);
        let view = QuotaDigestView::new(rows, more, language);
        let names = rows.iter().map(|row| format!("{}.{}", row.quota_id(), row.seq)).collect();
        let local = format!("quotas-{}.{CUSTOMER}", hash(names));
        let headers = MailHeaders::alone("quotas", &view.subject, local, to, date_ms);
        let rendered = self.render("quotas", language, &view)?;
        self.mail(headers, rendered, None)
    }

    /// Composes one mail about many transitions and changes of actions. It lists the worst 50 of each and counts the
    /// others.
    ///
    /// # Errors
    /// If there are none, or if a bundled template fails.
    pub fn digest(
        &self,
        digest: &StormDigest<'_>,
        audience: Audience,
        language: Language,
        to: &Mailbox,
        date_ms: u64,
    ) -> Result<Mail, ComposeError> {
        if digest.incidents.is_empty() && digest.actions.is_empty() {
            return Err(ComposeError::Empty);
        }
        let language = Wording(language);
        let view = DigestView::new(digest, audience, language, &self.guide);
        let incidents = digest.incidents.iter().map(|(each, _)| format!("{}.{}", each.incident_id, each.seq));
        let actions = digest.actions.iter().map(|each| format!("action-{}.{}", each.id, each.seq));
        let local = format!("digest-{}.{}", hash(incidents.chain(actions).collect()), audience.name());
        let headers = MailHeaders::alone("digest", &view.subject, local, to, date_ms);
        let rendered = self.render("digest", language, &view)?;
        self.mail(headers, rendered, None)
    }

    /// Composes security's daily mail about notices, which are refused calls of revoked keys. It lists the busiest 50 and
    /// counts the others; `more` further changes are only known by number.
    ///
    /// # Errors
    /// If there are no notices, or if a bundled template fails.
    pub fn daily(
        &self,
        notices: &[&TransitionJson],
        more: u64,
        language: Language,
        to: &Mailbox,
        date_ms: u64,
    ) -> Result<Mail, ComposeError> {
        if notices.is_empty() {
            return Err(ComposeError::Empty);
        }
        let language = Wording(language);
        let view = DailyView::new(notices, more, language);
        let names = notices.iter().map(|each| format!("{}.{}", each.incident_id, each.seq)).collect();
        let local = format!("daily-{}.{}", hash(names), Audience::Security.name());
        let headers = MailHeaders::alone("daily", &view.subject, local, to, date_ms);
        let rendered = self.render("daily", language, &view)?;
        self.mail(headers, rendered, None)
    }

    /// Composes a mail that says that it is a test.
    ///
    /// # Errors
    /// If a bundled template fails.
    pub fn test(&self, language: Language, to: &Mailbox, date_ms: u64) -> Result<Mail, ComposeError> {
        let language = Wording(language);
        let view = test_view(language, &self.guide);
        let local = format!("test-{date_ms}");
        let headers = MailHeaders::alone("test", view.subject, local, to, date_ms);
        let rendered = self.render("test", language, &view)?;
        self.mail(headers, rendered, None)
    }

    fn render(&self, name: &str, language: Wording, view: &impl Serialize) -> Result<Rendered, ComposeError> {
        let bundled = || fill(&self.bundled, name, language, view);
        let (filled, failed) = match self.own.as_ref().map(|own| fill(own, name, language, view)) {
            Some(Ok(filled)) => (filled, None),
            // A broken own template must never keep an alert back.
            Some(Err(error)) => (bundled()?, Some(error)),
            None => (bundled()?, None),
        };
        let (text, html) = filled;
        Ok(Rendered { text: tidy(&text), html, failed })
    }

    fn mail(
        &self,
        headers: MailHeaders<'_>,
        rendered: Rendered,
        chart: Option<(Chart, String)>,
    ) -> Result<Mail, ComposeError> {
        // STEP 1: the headers.
        let message_id = format!("<{}>", self.id(&headers.local));
        let date = SystemTime::UNIX_EPOCH + Duration::from_millis(headers.date_ms.min(DATE_MOST_MS));
        let mut message = Message::builder()
            .from(self.from.clone())
            .to(headers.to.clone())
            .date(date)
            .subject(headers.subject.clone())
            .message_id(Some(message_id.clone()));
        if let Some(reply_to) = &self.reply_to {
            message = message.reply_to(reply_to.clone());
        }
        if let Some(first) = &headers.thread {
            let first = format!("<{}>", self.id(first));
            message = message.in_reply_to(first.clone()).references(first);
        }
        let more = [("Auto-Submitted", "auto-generated"), ("X-Auto-Response-Suppress", "All")];
        let more = more.into_iter().map(|(name, value)| (name, value.to_owned())).chain(headers.more);
        for (name, value) in more {
            message = message.raw_header(HeaderValue::new(HeaderName::new_from_ascii_str(name), value));
        }
        // STEP 2: the parts. Boundaries follow from the id, so that the same mail has the same bytes. Parts are encoded,
        // so that none can contain a boundary.
        let boundary = |part: &str| hex(&Sha256::digest(format!("{part} {message_id}"))[..20]);
        let html = SinglePart::builder().header(ContentType::TEXT_HTML).body(rendered.html.clone());
        let alternative = MultiPart::alternative()
            .boundary(boundary("alternative"))
            .singlepart(SinglePart::builder().header(ContentType::TEXT_PLAIN).body(rendered.text.clone()));
        let (body, png) = match chart {
            Some((chart, id)) => {
                let picture = SinglePart::builder()
                    .header(ContentType::parse("image/png").unwrap_or(ContentType::TEXT_PLAIN))
                    .header(ContentDisposition::inline_with_name("traffic.png"))
                    .header(ContentId::from(format!("<{id}>")))
                    .body(chart.png.clone());
                let related =
                    MultiPart::related().boundary(boundary("related")).singlepart(html).singlepart(picture);
                (alternative.multipart(related), Some(chart.png))
            }
            None => (alternative.singlepart(html), None),
        };
        // STEP 3: the name of its file.
        let seconds = i64::try_from(headers.date_ms / 1_000).ok();
        let at = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()).unwrap_or_default();
        let recipient = hex(&Sha256::digest(headers.to.email.to_string())[..4]);
        Ok(Mail {
            message: message.multipart(body)?,
            message_id,
            name: format!("{}-{}-{recipient}", at.strftime("%Y%m%dT%H%M%SZ"), headers.local),
            subject: headers.subject,
            text: rendered.text,
            html: rendered.html,
            chart: png,
            failed_template: rendered.failed,
        })
    }

    fn id(&self, local: &str) -> String {
        match self.from.email.domain() {
            domain if domain.is_ascii() => format!("{local}@{domain}"),
            domain => format!("{local}@{}.invalid", hex(&Sha256::digest(domain)[..8])),
        }
    }
}

/// Returns a hash of the names of what a mail lists, whatever their order.
fn hash(mut names: Vec<String>) -> String {
    names.sort();
    hex(&Sha256::digest(names.join("\n"))[..16])
}

/// Fills a template and returns its text and HTML.
fn fill(
    templates: &MailTemplates,
    name: &str,
    language: Wording,
    view: &impl Serialize,
) -> Result<(String, String), TemplateError> {
    let of = |kind: &str| templates.render(&format!("{}/{name}.{kind}", language.code()), view);
    Ok((of("txt")?, of("html")?))
}

/// The end of the year 9999, the latest date of a header, in milliseconds.
const DATE_MOST_MS: u64 = 253_402_300_799_000;

/// The template input of a test mail.
#[derive(Serialize)]
struct TestView {
    language: &'static str,
    subject: &'static str,
    accent: &'static str,
    /// The beginning of all links in mails; absent if they have none.
    link: Option<String>,
}

fn test_view(language: Wording, guide: &Guide) -> TestView {
    TestView {
        language: language.code(),
        link: guide.origin(),
        subject: language.pick("[Keytide] TEST mails arrive", "[Keytide] 시험 메일 발송 확인"),
        accent: "#1b7f4b",
    }
}

/// Keeps at most 64 letters, digits and hyphens, for headers that programs read and names of files.
fn word(text: &str) -> String {
    let word: String = text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    if word.is_empty() { "none".to_owned() } else { word }
}

/// Removes trailing blanks, and all but one of several empty lines in a row.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.trim().lines().map(str::trim_end) {
        if !(line.is_empty() && out.ends_with("\n\n")) {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}
