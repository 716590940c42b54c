//! Writes the mails of some incidents, actions and quotas into a folder, to be looked at: `.eml`, `.html` (with the chart beside it),
//! `.txt`, `.png`, in every language, for security and for owners.
//!
//! ```sh
//! cargo run -p keytide-alerts --example mails -- /tmp/mails [TEMPLATES]
//! ```

use std::error::Error;
use std::path::PathBuf;

use keytide_alerts::email::{
    ActionLetter, Audience, Composer, Letter, Mail, QuotaLetter, StormDigest, samples,
};
use keytide_config::Language;

/// Monday, 23 November 2026, 09:00 UTC.
const DATE_MS: u64 = 1_795_424_400_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = arguments.next().ok_or("which folder?")?;
    std::fs::create_dir_all(&folder)?;
    let composer = Composer::new("Keytide <keytide@example.com>".parse()?, arguments.next().as_deref())?
        .guided(samples::guide());
    let to = "Security <security@example.com>".parse()?;
    let write = |name: &str, mail: &Mail| -> Result<(), Box<dyn Error>> {
        let path = |extension: &str| folder.join(format!("{name}.{extension}"));
        std::fs::write(path("eml"), mail.message.formatted())?;
        std::fs::write(path("txt"), format!("Subject: {}\n\n{}", mail.subject, mail.text))?;
        let mut html = mail.html.clone();
        if let Some(start) = html.find("cid:") {
            let end = html[start..].find('"').map_or(html.len(), |length| start + length);
            html.replace_range(start..end, &format!("{name}.png"));
        }
        std::fs::write(path("html"), html)?;
        if let Some(chart) = &mail.chart {
            std::fs::write(path("png"), chart)?;
        }
        Ok(())
    };
    let (transitions, planned, actions) = (samples::all(), samples::planned(), samples::actions());
    for (language, code) in [(Language::En, "en"), (Language::Ko, "ko")] {
        for audience in [Audience::Security, Audience::Owner] {
            for (transition, sample) in transitions.iter().zip(samples::NAMES) {
                let planned = (sample == "leak").then_some(&planned);
                let letter = Letter { transition, planned, audience, language, to: &to, date_ms: DATE_MS };
                write(&format!("{code}-{}-{sample}", audience.name()), &composer.incident(&letter)?)?;
            }
            for (notice, sample) in actions.iter().zip(samples::ACTION_NAMES) {
                if audience == Audience::Security || notice.concerns_owners() {
                    let letter = ActionLetter { notice, audience, language, to: &to, date_ms: DATE_MS };
                    write(
                        &format!("{code}-{}-action-{sample}", audience.name()),
                        &composer.action(&letter)?,
                    )?;
                }
            }
            let many = transitions.iter().cycle().take(60).map(|each| (each, None)).collect();
            let digest =
                StormDigest { incidents: many, actions: actions.iter().collect(), ..Default::default() };
            let name = format!("{}-{}-digest", code, audience.name());
            write(&name, &composer.digest(&digest, audience, language, &to, DATE_MS)?)?;
        }
        for (notice, number) in samples::gateways().iter().zip(0..) {
            let mail = composer.gateway(notice, language, &to, DATE_MS)?;
            write(&format!("{code}-security-gateway-{number}"), &mail)?;
        }
        let quotas = samples::quotas();
        for (row, sample) in quotas.iter().zip(samples::QUOTA_NAMES) {
            let letter = QuotaLetter { row, language, to: &to, date_ms: DATE_MS };
            write(&format!("{code}-customer-quota-{sample}"), &composer.quota(&letter)?)?;
        }
        let rows: Vec<_> = quotas.iter().collect();
        write(&format!("{code}-customer-quotas"), &composer.quotas(&rows, 0, language, &to, DATE_MS)?)?;
        let notices = [&samples::refused()];
        write(&format!("{code}-security-daily"), &composer.daily(&notices, 0, language, &to, DATE_MS)?)?;
        write(&format!("{code}-test"), &composer.test(language, &to, DATE_MS)?)?;
    }
    Ok(())
}
