//! The section `[alerts.*]`: recipients of incidents, and the actions that the policy may take.

use super::email::{EmailAlerts, RawEmail};
use super::guide::{LinkTemplate, RawSteps, Steps};
use super::policy::{PolicyRules, RawPolicy};
use super::prelude::*;
use super::webhook::{RawWebhook, Webhook};

section! {
    /// The section `[alerts.*]` of a configuration.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Alerts, RawAlerts then steps_for_somebody {
        /// Without `[alerts.email]` there are no mails.
        other email: Option<EmailAlerts> = email(RawEmail) or None;
        /// One of `[alerts.webhook]` or each `[[alerts.webhook]]`, with unique names.
        other webhooks: Vec<Webhook> = webhook(Sections<RawWebhook>) or Vec::new();
        /// The address of an incident in a tool of the security team.
        other link: Option<LinkTemplate> = link(LinkTemplate) or None;
        /// What `keytide actions` asks, if people may answer: the job's address, or the file of the configuration.
        other asked: Option<String> = _ or None;
        other steps: Steps = steps(RawSteps) or Steps::default();
        results policy: PolicyRules = policy(RawPolicy) or PolicyRules::default();
    }
}

impl RawAlerts {
    /// Warns of steps for owners who get no mails.
    fn steps_for_somebody(spot: &Spot<Self>, alerts: &mut Alerts, check: &mut Check<'_>) {
        let owner = spot.value.steps.value().and_then(|steps| steps.owner.given());
        if let Some(owner) = owner.filter(|_| alerts.email.as_ref().is_none_or(|email| !email.owners)) {
            check.warn(owner, "has no effect: owners get mails only with owners = true in [alerts.email]");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;
    use crate::*;

    /// Mails to a file.
    const EMAIL: &str =
        "[alerts.email]\ndir = \"mails\"\nfrom = \"a@example.com\"\nto = [\"b@example.com\"]\n";
    const SLACK: &str = "[alerts.webhook]\nurl = \"https://a.example/x\"\nformat = \"slack\"\n";

    /// Problems of a job with `lines`, without where they stand.
    fn told(lines: &str) -> String {
        let found = problems(&format!("{SMALL}{lines}"));
        let told = |line: &str| line.split_once("alerts.").map_or(line, |(_, told)| told).to_owned();
        found.lines().map(told).collect::<Vec<_>>().join("\n")
    }

    fn alerts(lines: &str) -> Alerts {
        job(&format!("{SMALL}{lines}")).alerts
    }

    fn email(lines: &str) -> EmailAlerts {
        alerts(&format!("{EMAIL}{lines}")).email.unwrap()
    }

    #[test]
    fn there_are_no_notifications_by_default() {
        assert_eq!(alerts(""), Alerts::default());
        assert_eq!(alerts("[alerts]"), Alerts::default());
        let email = email("");
        assert_eq!(email.dir.as_deref(), Some(Path::new("/etc/keytide/mails")));
        assert_eq!((email.server, email.owners, email.from.name.as_str()), (None, false, "Keytide"));
        assert!(!email.quota_notices);
    }

    #[test]
    fn a_server_is_asked_for_the_protection_its_port_is_for() {
        let tls = |lines: &str| email(lines).server.unwrap().tls;
        assert_eq!(tls("server = \"a.example:587\""), MailTls::Starttls);
        assert_eq!(tls("server = \"a.example:465\""), MailTls::Tls);
        assert_eq!(tls("server = \"[::1]:25\"\ntls = \"none\""), MailTls::None);
        assert_eq!(tls("server = \"localhost:25\"\ntls = \"none\""), MailTls::None);
        assert_eq!(tls("server = \"a.example:25\"\ntls = \"none\"\nallow_plaintext = true"), MailTls::None);
        let server = email("server = \"[2001:DB8::1]:587\"\nca = \"ca.pem\"").server.unwrap();
        assert_eq!(
            (server.host.as_str(), server.ca.as_deref()),
            ("2001:db8::1", Some(Path::new("/etc/keytide/ca.pem")))
        );
    }

    #[test]
    fn problems_of_mails_are_reported() {
        for (lines, expected) in [
            (
                "[alerts.email]\nfrom = \"a@example.com\"\nto = [\"b@example.com\"]",
                "email: needs a `server` that takes the mails, a `dir` to which they are written, or both",
            ),
            (
                "[alerts.email]\ndir = \"x\"",
                "email.from: missing, allowed: a mail's address, alone or as \"Keytide <keytide@example.com>\"\n\
                 email.to: missing, allowed: a list",
            ),
            (
                &EMAIL.replace("[\"b@example.com\"]", "[]"),
                "email.to: is empty, allowed: at least one address",
            ),
            (
                &EMAIL.replace("b@example.com", "b@example.com>, c"),
                "email.to[0]: found \"b@example.com>, c\", allowed: a mail's address, such as \"security@example.com\"",
            ),
            (
                &format!("{EMAIL}server = \"smtp://a.example:25\""),
                "email.server: found \"smtp://a.example:25\", allowed: host:port, such as \"smtp.example.com:587\"; the protocol stands beside it: tls",
            ),
            (
                &format!("{EMAIL}server = \"user:canary@a.example:25\""),
                "email.server: found a value that is not shown, allowed: host:port, such as \"smtp.example.com:587\"; users and passwords stand beside it: username, password",
            ),
            (
                &format!("{EMAIL}server = \"a.example:25\"\ntls = \"none\""),
                "email.tls: found \"none\" with \"a.example:25\", so that anybody in between could read the mails, allowed: starttls, tls; or allow_plaintext = true beside it",
            ),
            (
                &format!("{EMAIL}server = \"a.example:25\"\nusername = \"u\""),
                "email.username: needs a `password` beside it, allowed: \"env:NAME\" or \"file:PATH\", never the secret itself",
            ),
            (
                &format!("{EMAIL}server = \"a.example:25\"\npassword = \"env:HOME\""),
                "email.password: needs a `username` beside it",
            ),
            (&format!("{EMAIL}ca = \"x\""), "email.ca: has no meaning here, allowed: only beside `server`"),
            (
                &format!("{EMAIL}per_hour = 0\nper_recipient = 10001"),
                "email.per_hour: found 0, allowed: 1 to 100000\nemail.per_recipient: found 10001, allowed: 1 to 10000",
            ),
            (&format!("{EMAIL}language = \"de\""), "email.language: found \"de\", allowed: en, ko"),
            (
                "[alerts.email]\ndir = \"x\"\nfrom = \"a@example.com\"\nper_hour = 0",
                "email.per_hour: found 0, allowed: 1 to 100000\nemail.to: missing, allowed: a list",
            ),
        ] {
            let mut found: Vec<String> = told(lines).lines().map(str::to_owned).collect();
            found.sort();
            let mut expected: Vec<&str> = expected.lines().collect();
            expected.sort_unstable();
            assert_eq!(found, expected, "{lines}");
        }
    }

    #[test]
    fn mails_that_miss_their_purpose_are_warned_of() {
        let twice = EMAIL.replace("\"b@example.com\"", "\"b@example.com\", \"b@example.com\"");
        let text = format!("{SMALL}{twice}owner_language = \"ko\"");
        let warnings = warnings(&text);
        assert!(warnings.contains("alerts.email.to[1]: \"b@example.com\" is told once"), "{warnings}");
        assert!(warnings.contains("owner_language: has no effect"), "{warnings}");
        assert_eq!(job(&text).alerts.email.unwrap().to, ["b@example.com"]);
        let owners = email("owners = true\nlanguage = \"ko\"");
        assert_eq!((owners.language, owners.owner_language), (Language::Ko, Language::Ko));
        let quotas = text.replace("owner_language", "quota_notices = true\nowner_language");
        assert!(!self::warnings(&quotas).contains("owner_language"), "{quotas}");
        assert!(job(&quotas).alerts.email.unwrap().quota_notices);
    }

    #[test]
    fn a_guide_has_a_link_and_steps() {
        let lines = "[alerts]\nlink = \"https://soc.example.com/i/{incident_id}\"\n[alerts.steps]\n\
                     security = [\"Suspend it: ourctl keys suspend {key_id}\", \"Ask {customer}.\"]";
        let guide = alerts(lines);
        assert_eq!(guide.link.unwrap().fill("00ff", "3f2a"), "https://soc.example.com/i/00ff");
        assert_eq!((guide.steps.security.len(), guide.steps.owner.len()), (2, 0));
        let nobody = warnings(&format!("{SMALL}[alerts.steps]\nowner = [\"Call us.\"]"));
        assert!(nobody.contains("alerts.steps.owner: has no effect"), "{nobody}");
        assert_eq!(
            told("[alerts]\nlink = \"https://soc.example.com/\""),
            "link: found \"https://soc.example.com/\", allowed: an http or https address with {incident_id} or {key_id} \
             behind its host, such as \"https://soc.example.com/incidents/{incident_id}\""
        );
        assert_eq!(
            told("[alerts.steps]\nsecurity = [\"{key}\"]"),
            "steps.security[0]: found \"{key}\", allowed: 1 to 300 bytes of text, in braces only {key_id}, {incident_id}, \
             {subscription} or {customer}"
        );
        assert_eq!(email("reply_to = \"soc@example.com\"").reply_to.as_deref(), Some("soc@example.com"));
        assert_eq!(
            told(&format!("{EMAIL}reply_to = \"SOC\"")),
            "email.reply_to: found \"SOC\", allowed: a mail's address, such as \"security@example.com\""
        );
    }

    #[test]
    fn webhooks_are_one_or_several() {
        let one = alerts(SLACK).webhooks;
        assert_eq!((one.len(), one[0].name.as_str(), one[0].timeout_ms), (1, "webhook", 10_000));
        let many = SLACK.replace("[alerts.webhook]", "[[alerts.webhook]]\nname = \"a\"")
            + &SLACK.replace("[alerts.webhook]", "[[alerts.webhook]]");
        assert_eq!(
            alerts(&many).webhooks.iter().map(|hook| hook.name.as_str()).collect::<Vec<_>>(),
            ["a", "webhook"]
        );
        let twice = SLACK.replace("[alerts.webhook]", "[[alerts.webhook]]").repeat(2);
        assert_eq!(
            told(&twice),
            "webhook[1]: \"webhook\" names another webhook too, allowed: names that differ"
        );
        assert_eq!(
            told("[alerts]\nwebhook = 1"),
            "webhook: found 1, allowed: a list, written [[alerts.webhook]]"
        );
    }

    #[test]
    fn a_webhook_is_public_and_signed_by_default() {
        let url = |url: &str| SLACK.replace("https://a.example/x", url);
        let refused = |url: &str| {
            format!("webhook.url: found {url}, allowed: https to a host that is public; or allow_private = [")
        };
        for (url, found) in [
            (url("http://a.example/canary"), "http to \"a.example\""),
            (url("https://127.0.0.1/canary"), "https to \"127.0.0.1\""),
            (url("https://LOCALHOST:99/canary"), "https to \"localhost\""),
            (url("https://[::ffff:127.0.0.1]/canary"), "https to \"::ffff:127.0.0.1\""),
        ] {
            let told = told(&url);
            assert!(told.starts_with(&refused(found)) && !told.contains("canary"), "{told}");
        }
        let allowed = alerts(&(url("http://localhost:99/x") + "allow_private = [\"LocalHost\"]"));
        assert!(!allowed.webhooks[0].url.tls);
        assert_eq!(
            told(&SLACK.replace("format = \"slack\"", "")),
            "webhook.secret: missing, allowed: \"env:NAME\" or \"file:PATH\", never the secret itself"
        );
        let loaded = parse_with(
            &format!("{SMALL}[alerts.webhook]\nurl = \"env:URL\"\nsecret = \"env:SECRET\""),
            &[("URL", "https://a.example/canary"), ("SECRET", "canary-0123456789")],
        );
        let hook = loaded.unwrap().job.alerts.webhooks.remove(0);
        assert_eq!((hook.format, hook.url.target.reveal()), (WebhookFormat::Keytide, "/canary"));
        assert!(!format!("{hook:?}").contains("canary"));
        let error = parse_with(
            &format!("{SMALL}[alerts.webhook]\nurl = \"env:URL\"\nformat = \"slack\""),
            &[("URL", "canary")],
        );
        let error = error.unwrap_err().to_string();
        assert!(error.contains("url: what it refers to is no URL") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn a_webhook_is_told_of_incidents_or_quotas_or_both() {
        let told_of = |lines: &str| {
            let hook = alerts(&format!("{SLACK}{lines}")).webhooks.remove(0);
            (hook.incidents, hook.quota_notices)
        };
        assert_eq!(told_of(""), (true, false));
        assert_eq!(told_of("quota_notices = true"), (true, true));
        assert_eq!(told_of("incidents = false\nquota_notices = true"), (false, true));
        assert_eq!(
            told(&format!("{SLACK}incidents = false")),
            "webhook.incidents: found false, so that it is told of nothing, allowed: true; or quota_notices = true"
        );
    }

    #[test]
    fn acting_is_off_by_default() {
        let lines = "[alerts.policy]\ndefault = \"revoke\"\nkeys_per_hour = 0\npercent_per_hour = 100\ncooldown = \"30d\"";
        let expected = PolicyRules {
            default: DefaultPolicy::Revoke,
            keys_per_hour: 0,
            percent_per_hour: 100,
            cooldown_ms: 30 * 86_400_000,
            mode: PolicyMode::DryRun,
        };
        assert_eq!(alerts(lines).policy, expected);
        assert_eq!(
            told("[alerts.policy]\nmode = \"on\""),
            "policy.mode: found \"on\", allowed: dry_run, live"
        );
    }
}
