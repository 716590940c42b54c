//! Against a scripted server of one connection: what each answer, silence and break comes to.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;

use keytide_config::{Language, Secret, Sender};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::email::{Audience, Composer, Letter, samples};

/// Ends the connection without a word.
const BREAK: &str = "break";
/// Says nothing until the other side gives up.
const SILENCE: &str = "silence";

/// What a server answers to lines that begin so; the first that fits. The greeting answers to "", the message to ".".
type Script = Vec<(&'static str, &'static str)>;

fn script(changes: &[(&'static str, &'static str)]) -> Script {
    let mut script = changes.to_vec();
    script.extend([
        ("", "220 sink"),
        ("EHLO", "250-sink\r\n250 AUTH PLAIN"),
        ("AUTH", "235 welcome"),
        ("DATA", "354 go on"),
        ("QUIT", "221 bye"),
        ("", "250 fine"),
    ]);
    script
}

/// Serves one connection; gives what it read.
struct Sink {
    port: u16,
    served: JoinHandle<String>,
}

impl Sink {
    fn start(script: Script, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = String::new();
            if !dialogue(
                &mut BufReader::new(stream.try_clone().unwrap()),
                &mut stream,
                &script,
                true,
                &mut seen,
            ) && let Some(config) = tls
            {
                let connection = ServerConnection::new(config).unwrap();
                let mut stream = BufReader::new(StreamOwned::new(connection, stream));
                encrypted(&mut stream, &script, &mut seen);
            }
            seen
        });
        Self { port, served }
    }

    fn seen(self) -> String {
        self.served.join().unwrap()
    }
}

/// The answer to a line.
fn answer(script: &Script, line: &str) -> &'static str {
    let greeting = script.iter().find(|(start, _)| start.is_empty()).unwrap().1;
    if line.is_empty() {
        return greeting;
    }
    let found = script.iter().find(|(start, _)| !start.is_empty() && line.starts_with(start));
    found.map_or("250 fine", |found| found.1)
}

/// Speaks in the clear; `false`: TLS begins now.
fn dialogue(
    input: &mut impl std::io::BufRead,
    output: &mut impl Write,
    script: &Script,
    greet: bool,
    seen: &mut String,
) -> bool {
    let mut say = |line: &str, input: &mut dyn Read| match answer(script, line) {
        BREAK => false,
        SILENCE => {
            // Ends when the client hangs up.
            let _ = std::io::copy(input, &mut std::io::sink());
            false
        }
        text => output.write_all(format!("{text}\r\n").as_bytes()).is_ok(),
    };
    if greet && !say("", input) {
        return true;
    }
    let mut in_message = false;
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).unwrap_or(0) == 0 {
            return true;
        }
        seen.push_str(&line);
        let line = line.trim_end();
        if in_message && line != "." {
            continue;
        }
        in_message = line == "DATA" && answer(script, line).starts_with("354");
        if !say(line, input) {
            return true;
        }
        if line == "STARTTLS" {
            return false;
        }
    }
}

/// Speaks over TLS.
fn encrypted(
    stream: &mut BufReader<StreamOwned<ServerConnection, TcpStream>>,
    script: &Script,
    seen: &mut String,
) {
    seen.push_str("(TLS)\n");
    let mut in_message = false;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        seen.push_str(&line);
        let line = line.trim_end();
        if in_message && line != "." {
            continue;
        }
        in_message = line == "DATA";
        if stream.get_mut().write_all(format!("{}\r\n", answer(script, line)).as_bytes()).is_err() {
            return;
        }
    }
}

fn mail() -> &'static Mail {
    static MAIL: LazyLock<Mail> = LazyLock::new(composed);
    &MAIL
}

fn composed() -> Mail {
    let composer = Composer::new("Keytide <keytide@example.com>".parse().unwrap(), None).unwrap();
    let to = "security@example.org".parse().unwrap();
    let letter = Letter {
        transition: &samples::leak(),
        planned: None,
        audience: Audience::Security,
        language: Language::En,
        to: &to,
        date_ms: 1_795_424_400_000,
    };
    composer.incident(&letter).unwrap()
}

fn email(server: Option<MailServer>) -> EmailAlerts {
    let from = Sender { name: "Keytide".to_owned(), address: "keytide@example.com".to_owned() };
    EmailAlerts { server, ..EmailAlerts::new(from, vec!["security@example.org".to_owned()]) }
}

fn server(port: u16) -> MailServer {
    MailServer { host: "127.0.0.1".to_owned(), port, tls: MailTls::None, credentials: None, ca: None }
}

fn transport(server: MailServer) -> Transport {
    let mut transport = Transport::new(&email(Some(server))).unwrap();
    // Only silence waits for it.
    transport.server.as_mut().unwrap().connect = Duration::from_millis(300);
    transport.server.as_mut().unwrap().answer = Duration::from_millis(300);
    transport
}

fn credentials() -> Option<(String, Secret)> {
    Some(("keytide".to_owned(), Secret::new("the password".to_owned())))
}

/// What becomes of a mail, and what the server saw.
fn send(changes: &[(&'static str, &'static str)]) -> (MailOutcome, String) {
    let sink = Sink::start(script(changes), None);
    let mut server = server(sink.port);
    server.credentials = credentials();
    let outcome = transport(server).send(mail());
    (outcome, sink.seen())
}

#[test]
fn a_mail_is_handed_over_whole() {
    let (outcome, seen) = send(&[]);
    assert_eq!(outcome, MailOutcome::Sent { unfiled: None });
    assert!(
        seen.contains("MAIL FROM:<keytide@example.com>\r\nRCPT TO:<security@example.org>\r\nDATA\r\n"),
        "{seen}"
    );
    let message = String::from_utf8(mail().message.formatted()).unwrap();
    assert!(seen.contains(&message.replace("\r\n.", "\r\n..")), "{seen}");
    assert!(seen.ends_with(".\r\nQUIT\r\n"), "{seen}");
}

#[test]
fn every_answer_has_its_outcome() {
    let retry = |outcome: &MailOutcome| matches!(outcome, MailOutcome::Retry(_));
    let refused = |outcome: &MailOutcome| matches!(outcome, MailOutcome::Refused(_));
    let misconfigured = |outcome: &MailOutcome| matches!(outcome, MailOutcome::Misconfigured(_));
    let sent = |outcome: &MailOutcome| matches!(outcome, MailOutcome::Sent { unfiled: None });
    type Is<'a> = &'a dyn Fn(&MailOutcome) -> bool;
    let cases: [(&str, &str, Is<'_>); 33] = [
        ("", "421 busy", &retry),
        ("", "554 no mail here", &misconfigured),
        ("", "SSH-2.0-OpenSSH_9.2", &retry),
        ("", BREAK, &retry),
        ("", SILENCE, &retry),
        ("EHLO", "421 busy", &retry),
        ("EHLO", "502 what?", &misconfigured),
        ("EHLO", BREAK, &retry),
        ("EHLO", "250 sink", &misconfigured),
        ("AUTH", "454 later", &retry),
        ("AUTH", "535 wrong password", &misconfigured),
        ("AUTH", BREAK, &retry),
        ("MAIL", "451 later", &retry),
        ("MAIL", "530 sign in", &misconfigured),
        ("MAIL", "550 not from you", &misconfigured),
        ("MAIL", BREAK, &retry),
        ("RCPT", "450 later", &retry),
        ("RCPT", "530 sign in", &misconfigured),
        ("RCPT", "550 unknown", &refused),
        ("RCPT", "550 5.1.1 unknown", &refused),
        ("RCPT", "550 relay not permitted", &misconfigured),
        ("RCPT", "554 5.7.1 no", &misconfigured),
        ("RCPT", SILENCE, &retry),
        ("DATA", "451 later", &retry),
        ("DATA", "554 no", &refused),
        ("DATA", BREAK, &retry),
        (".", "451 later", &retry),
        (".", "552 too big", &refused),
        (".", "garbage", &retry),
        (".", BREAK, &retry),
        (".", SILENCE, &retry),
        ("QUIT", "421 busy", &sent),
        ("QUIT", BREAK, &sent),
    ];
    for (line, answer, is_right) in cases {
        let (outcome, _) = send(&[(line, answer)]);
        assert!(is_right(&outcome), "{line:?} answered {answer:?}: {outcome:?}");
    }
}

#[test]
fn reasons_say_who_and_what_without_acting() {
    let (outcome, _) = send(&[("RCPT", "550 5.1.1 \u{1b}[31mno such user, see https://evil.example/x")]);
    let MailOutcome::Refused(reason) = outcome else { panic!("{outcome:?}") };
    assert!(reason.starts_with("127.0.0.1:"), "{reason}");
    assert!(reason.contains("550") && reason.contains("\\u{1b}[31mno such user"), "{reason}");
    assert!(!reason.contains("://") && !reason.contains('\u{1b}'), "{reason}");
    let (outcome, _) = send(&[("RCPT", SILENCE)]);
    assert!(format!("{outcome:?}").contains("no answer in time"), "{outcome:?}");
}

#[test]
fn passwords_stay_out_of_outcomes_and_debug() {
    let sink = Sink::start(script(&[("AUTH", "535 wrong")]), None);
    let transport = transport(MailServer { credentials: credentials(), ..server(sink.port) });
    let shown = format!("{transport:?} {:?}", transport.send(mail()));
    sink.seen();
    assert!(!shown.contains("the password") && !shown.contains("AGtleXRpZGU"), "{shown}");
}

#[test]
fn nobody_listens_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    assert!(matches!(transport(server(port)).send(mail()), MailOutcome::Retry(_)));
}

#[test]
fn without_starttls_no_credentials_are_sent() {
    let sink = Sink::start(script(&[]), None);
    let server = MailServer { tls: MailTls::Starttls, credentials: credentials(), ..server(sink.port) };
    let outcome = transport(server).send(mail());
    assert!(matches!(outcome, MailOutcome::Misconfigured(_)), "{outcome:?}");
    let seen = sink.seen();
    assert!(!seen.contains("AUTH") && !seen.contains("MAIL"), "{seen}");
}

/// A server's configuration with a certificate for a name, and the file of the authority that signed it.
fn authority(name: &str, folder: &Path) -> (Arc<ServerConfig>, PathBuf) {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let path = folder.join("ca.pem");
    std::fs::write(&path, issuer.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    (Arc::new(config), path)
}

#[test]
fn a_private_authority_is_trusted_where_it_is_named_and_only_for_the_servers_name() {
    let folder = tempfile::tempdir().unwrap();
    for (name, named, trusted) in
        [("127.0.0.1", true, true), ("127.0.0.1", false, false), ("mail.example.com", true, false)]
    {
        let (config, ca) = authority(name, folder.path());
        let script =
            script(&[("EHLO", "250-sink\r\n250-STARTTLS\r\n250 AUTH PLAIN"), ("STARTTLS", "220 go on")]);
        let sink = Sink::start(script, Some(config));
        let server = MailServer {
            tls: MailTls::Starttls,
            credentials: credentials(),
            ca: named.then_some(ca),
            ..server(sink.port)
        };
        let transport = Transport::new(&email(Some(server)));
        let outcome = match &transport {
            Ok(transport) => transport.send(mail()),
            // A machine without any authority can't trust one.
            Err(error) => MailOutcome::Misconfigured(error.to_string()),
        };
        match trusted {
            true => {
                assert_eq!(outcome, MailOutcome::Sent { unfiled: None });
                let seen = sink.seen();
                let (clear, hidden) = seen.split_once("(TLS)").unwrap();
                assert!(!clear.contains("AUTH") && hidden.contains("AUTH PLAIN"), "{seen}");
            }
            false => assert!(matches!(outcome, MailOutcome::Misconfigured(_)), "{name} {named}: {outcome:?}"),
        }
    }
}

#[test]
fn a_connection_can_be_tried() {
    let sink = Sink::start(script(&[]), None);
    let transport = transport(MailServer { credentials: credentials(), ..server(sink.port) });
    let found = transport.connect().unwrap().unwrap();
    assert!(found.ends_with("in the clear, signed in"), "{found}");
    let seen = sink.seen();
    assert!(seen.contains("NOOP") && !seen.contains("MAIL"), "{seen}");
    assert_eq!(Transport::new(&email(None)).unwrap().connect(), Ok(None));
}

#[test]
fn files_hold_the_envelope_and_are_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("new/mails");
    let transport = Transport::new(&EmailAlerts { dir: Some(dir.clone()), ..email(None) }).unwrap();
    for _ in 0..2 {
        assert_eq!(transport.send(mail()), MailOutcome::Sent { unfiled: None });
    }
    let names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let name = names[0].to_str().unwrap();
    assert!(name.starts_with("20261123T090000Z-8c4f21d97a06b35e19f2c0a4d7e86b13.0.security-"), "{name}");
    let mut content = String::new();
    File::open(dir.join(name)).unwrap().read_to_string(&mut content).unwrap();
    let envelope = "X-Envelope-From: <keytide@example.com>\r\nX-Envelope-To: <security@example.org>\r\n";
    let message = content.strip_prefix(envelope).unwrap();
    assert_eq!(message.as_bytes(), mail().message.formatted());
}

#[test]
fn a_mail_goes_out_though_its_file_cant_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("mails");
    let sink = Sink::start(script(&[]), None);
    let email = EmailAlerts { dir: Some(dir.clone()), ..email(Some(server(sink.port))) };
    let transport = Transport::new(&email).unwrap();
    std::fs::write(&dir, "a file, no folder").unwrap();
    let outcome = transport.send(mail());
    assert!(
        matches!(&outcome, MailOutcome::Sent { unfiled: Some(reason) } if reason.contains("mails")),
        "{outcome:?}"
    );
    assert!(sink.seen().contains("DATA"));
    let files = Transport { server: None, ..transport };
    assert!(matches!(files.send(mail()), MailOutcome::Retry(_)));
}

#[test]
fn unusable_certificates_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let error = |server: &MailServer| Transport::new(&email(Some(server.clone()))).unwrap_err().to_string();
    let server = MailServer { tls: MailTls::Tls, ca: Some(ca.clone()), ..server(1) };
    assert!(error(&server).contains("ca.pem"));
    std::fs::write(&ca, "no certificate").unwrap();
    assert!(error(&server).ends_with("it has no certificate (PEM)"));
}
