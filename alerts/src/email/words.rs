//! The wording of data in mails: numbers, times, names of countries and signals, in English and Korean.
//!
//! The sentences are in the templates. All times are UTC and say so.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use keytide_config::Language;
use keytide_dataflow::incident_row::{SignalJson, TransitionJson, UsualJson, ValueJson};

use keytide_dataflow::{Change, Verb};

use super::clean::{NAME, REASON, VALUE, foreign, line};

/// The most usual values of a kind.
const MAX_USUAL: usize = 3;

const COUNTRIES: &str = include_str!("../../assets/countries.tsv");

/// Words data in a language.
#[derive(Clone, Copy)]
pub(crate) struct Wording(pub(crate) Language);

impl Wording {
    pub(crate) const ALL: [Self; 2] = [Self(Language::En), Self(Language::Ko)];

    /// Returns the language's code of ISO 639-1.
    pub(crate) fn code(self) -> &'static str {
        self.pick("en", "ko")
    }

    pub(super) fn pick<T>(self, en: T, ko: T) -> T {
        match self.0 {
            Language::En => en,
            Language::Ko => ko,
        }
    }

    /// Formats a time as `2026-11-21 14:05 UTC`. Text that is no time is shown unchanged but harmless.
    pub(crate) fn time(self, at: &str) -> String {
        self.format(at, self.pick("%Y-%m-%d %H:%M UTC", "%Y년 %-m월 %-d일 %H:%M (UTC)"))
    }

    /// Formats a time by the clock of a zone of IANA's database, as `2026-12-01 00:00 Asia/Seoul`. Without a zone, or if there
    /// is no such one, it is UTC.
    pub(crate) fn time_in(self, at: &str, zone: Option<&str>) -> String {
        let known = at.parse::<Timestamp>().ok().zip(zone.and_then(|zone| TimeZone::get(zone).ok()));
        let Some((time, zone)) = known else { return self.time(at) };
        let Some(name) = zone.iana_name() else { return self.time(at) };
        let local = time.to_zoned(zone.clone());
        let local = local.strftime(self.pick("%Y-%m-%d %H:%M", "%Y년 %-m월 %-d일 %H:%M"));
        self.pick(format!("{local} {name}"), format!("{local} ({name})"))
    }

    /// Formats a time as [`Self::time`] does, with seconds.
    pub(crate) fn second(self, at: &str) -> String {
        self.format(at, "%Y-%m-%d %H:%M:%S UTC")
    }

    /// Formats the date of a time as `2026-11-21`.
    pub(crate) fn day(self, at: &str) -> String {
        self.format(at, self.pick("%Y-%m-%d", "%Y년 %-m월 %-d일"))
    }

    /// Formats the time of day as `14:05`.
    pub(crate) fn clock(self, at: &str) -> String {
        self.format(at, "%H:%M")
    }

    fn format(self, at: &str, format: &str) -> String {
        match at.parse::<Timestamp>() {
            Ok(time) => time.to_zoned(TimeZone::UTC).strftime(format).to_string(),
            Err(_) => line(at, NAME),
        }
    }

    /// Formats the window of a signal as `Nov 21, 14:05 to 14:10`.
    pub(crate) fn window(self, start: &str, width_s: u64) -> String {
        let end = start.parse::<Timestamp>().ok().and_then(|start| {
            start.checked_add(jiff::SignedDuration::from_secs(i64::try_from(width_s).ok()?)).ok()
        });
        let begin = self.format(start, self.pick("%b %-d, %H:%M", "%-m월 %-d일 %H:%M"));
        let (start, end) = (begin, end.map(|end| self.clock(&end.to_string())));
        match end {
            Some(end) => self.pick(format!("{start} to {end}"), format!("{start}~{end}")),
            None => start,
        }
    }

    /// Formats the duration between two times as `1 h 26 min`.
    pub(crate) fn between(self, from: &str, to: &str) -> Option<String> {
        let (from, to) = (from.parse::<Timestamp>().ok()?, to.parse::<Timestamp>().ok()?);
        let minutes = to.as_second().saturating_sub(from.as_second()).max(0) / 60;
        let (hours, rest) = (minutes / 60, minutes % 60);
        Some(match (hours, rest) {
            (0, _) => self.pick(format!("{rest} min"), format!("{rest}분")),
            (_, 0) => self.pick(format!("{hours} h"), format!("{hours}시간")),
            _ => self.pick(format!("{hours} h {rest} min"), format!("{hours}시간 {rest}분")),
        })
    }

    /// Formats a country's name and code as `Brazil (BR)`.
    fn country(self, code: &str) -> String {
        match self.known_country(code) {
            Some(name) => format!("{name} ({code})"),
            None => self.country_name(code),
        }
    }

    fn known_country(self, code: &str) -> Option<&'static str> {
        let mut rows = COUNTRIES.lines().map(|row| row.split('\t'));
        let mut cells = rows.find_map(|mut cells| (cells.next() == Some(code)).then_some(cells))?;
        self.pick(cells.next(), cells.next())
    }

    /// Returns a country's name. A code that is none is shown as it is.
    pub(super) fn country_name(self, code: &str) -> String {
        match (self.known_country(code), code) {
            (Some(name), _) => name.to_owned(),
            (None, "ZZ") => self.pick("an unknown country", "알 수 없는 국가").to_owned(),
            (None, "XX") => self.pick("other countries", "그 밖의 국가").to_owned(),
            (None, _) => line(code, NAME),
        }
    }

    /// Formats a value of a signal.
    pub(crate) fn value(self, value: &ValueJson) -> String {
        self.named(&value.kind, &value.value)
    }

    fn named(self, kind: &str, value: &str) -> String {
        match kind {
            "country" => self.country(value),
            // Names of networks, routes and user agents are free text of strangers.
            _ => foreign(value, VALUE),
        }
    }

    /// Lists the usual values of a signal's kind with their shares, as `South Korea (KR) 99.8 %`.
    pub(crate) fn usual(self, signal: &str, usual: &[UsualJson]) -> Option<String> {
        let kind = match signal {
            "fan_out" => "network",
            "country" | "asn" | "network" | "user_agent" | "route" => signal,
            _ => return None,
        };
        let usual: Vec<String> = usual
            .iter()
            .filter(|usual| usual.kind == kind)
            .take(MAX_USUAL)
            .map(|usual| format!("{} {}", self.named(kind, &usual.value), percent(usual.share)))
            .collect();
        (!usual.is_empty()).then(|| usual.join(", "))
    }

    /// Formats a number of times as `3 times`.
    pub(crate) fn times(self, times: u32) -> String {
        match times {
            1 => self.pick("once", "1번").to_owned(),
            _ => self.pick(format!("{} times", number(times.into())), format!("{}번", number(times.into()))),
        }
    }

    /// Formats a number of calls as `3,120 calls`.
    pub(crate) fn calls(self, calls: u64) -> String {
        let number = number(calls);
        self.pick(
            if calls == 1 { "1 call".to_owned() } else { format!("{number} calls") },
            format!("호출 {number}회"),
        )
    }

    /// Returns the title of a signal.
    pub(crate) fn signal(self, name: &str) -> String {
        let (en, ko) = match name {
            "volume_1m" => ("Calls in one minute", "1분간 호출 수"),
            "volume_5m" => ("Calls in five minutes", "5분간 호출 수"),
            "volume_1h" => ("Calls in one hour", "1시간 호출 수"),
            "slow" => ("More calls than usual, for hours", "평소보다 많은 호출이 오래 이어짐"),
            "country" => ("Country never seen with this key", "이 키에서 처음 나타난 국가"),
            "asn" => ("System (AS) never seen with this key", "이 키에서 처음 나타난 통신망(AS)"),
            "network" => ("Network never seen with this key", "이 키에서 처음 나타난 주소 대역"),
            "fan_out" => ("Networks in use at once", "동시에 쓰인 주소 대역 수"),
            "shared_network" => {
                ("Its network is new to other keys, too", "다른 키에서도 처음 나타난 주소 대역")
            }
            "user_agent" => ("User agent never seen with this key", "이 키에서 처음 나타난 사용자 에이전트"),
            "route" => ("Route never called with this key", "이 키로 처음 호출된 경로"),
            "mix" => ("Other routes in demand than usual", "경로별 호출 비중이 평소와 다름"),
            "refused" => ("Calls refused (401, 403)", "거부된 호출(401, 403)"),
            "throttled" => ("Calls over the limit (429)", "한도를 넘은 호출(429)"),
            "revoked" => ("Used although it is revoked", "폐기된 키가 사용됨"),
            "dormant" => (
                "Unused for more than 30 days, then called from a new network",
                "30일 넘게 쓰이지 않다가 새로운 통신망에서 호출됨",
            ),
            "reported" => ("Found where everybody can read it", "누구나 볼 수 있는 곳에서 발견됨"),
            "tor" => ("Called through Tor", "Tor를 통해 호출됨"),
            "travel" => ("Called from places too far apart", "이동할 수 없는 거리에서 번갈아 호출됨"),
            other => return line(other, NAME),
        };
        self.pick(en, ko).to_owned()
    }

    /// Returns the title of a family of signals.
    pub(crate) fn family(self, name: &str) -> String {
        let (en, ko) = match name {
            "volume" => ("volume", "호출량"),
            "origin" => ("origin", "출처"),
            "behaviour" => ("behaviour", "행동"),
            "errors" => ("errors", "오류"),
            "hard" => ("fact", "확인된 사실"),
            other => return line(other, NAME),
        };
        self.pick(en, ko).to_owned()
    }

    /// Formats the observed and the expected number as `4,812 calls, 120 expected`.
    pub(crate) fn measure(self, signal: &SignalJson) -> String {
        let number = number(signal.seen);
        let seen = match signal.signal.as_str() {
            "fan_out" => self.pick(format!("{number} networks"), format!("주소 대역 {number}개")),
            "shared_network" => self.pick(
                format!("first calls with {}", self.other(u32::try_from(signal.seen).unwrap_or(u32::MAX))),
                format!("다른 키 {number}개에 첫 호출"),
            ),
            "travel" => self.pick(format!("{number} km apart"), format!("{number}km 떨어진 곳")),
            "reported" => return self.pick("reported as leaked", "유출 신고 접수").to_owned(),
            _ => self.calls(signal.seen),
        };
        match expected(signal) {
            Some(usual) => self.pick(format!("{seen}, {usual} expected"), format!("{seen}, 평소 {usual}")),
            None => seen,
        }
    }

    /// Formats a multiple of the expected number as `40x`.
    pub(crate) fn ratio(self, ratio: f64) -> Option<String> {
        let shown = match ratio {
            _ if !ratio.is_finite() || ratio < 1.05 => return None,
            _ if ratio > 9_999.0 => self.pick(">9,999".to_owned(), "9,999".to_owned()),
            _ => amount(ratio),
        };
        Some(self.pick(
            format!("{shown}x"),
            match ratio {
                _ if ratio > 9_999.0 => format!("{shown}배 이상"),
                _ => format!("{shown}배"),
            },
        ))
    }

    /// Formats a signal's weight in the verdict, and its chance where there is one: `counts 15.6 bits; by chance less
    /// than once in 17 million`.
    pub(crate) fn surprise(self, signal: &SignalJson) -> String {
        let finite = |bits: f64| if bits.is_finite() { bits.clamp(0.0, 1e6) } else { 0.0 };
        let (bits, counted) = (finite(signal.bits), finite(signal.weighted_bits));
        if signal.family == "hard" {
            return self.pick("a fact, not a measurement", "통계가 아닌 확인된 사실").to_owned();
        }
        // Less would be shown as no bits at all.
        let counts = match counted >= 0.05 {
            true => self.pick(format!("counts {counted:.1} bits"), format!("{counted:.1}비트로 반영")),
            false => self.pick("counts nothing".to_owned(), "판단에는 반영되지 않음".to_owned()),
        };
        if !is_probability(&signal.signal) || bits < 1.0 {
            return counts;
        }
        let odds = match bits {
            _ if bits >= 40.0 => self.pick("a trillion", "1조 번에 한 번 미만").to_owned(),
            _ => {
                #[expect(clippy::cast_sign_loss, reason = "1 to 2^40")]
                let one_in = libm::exp2(bits) as u64;
                self.pick(rounded(one_in), format!("{} 번에 한 번 미만", rounded_ko(one_in)))
            }
        };
        self.pick(
            format!("{counts}; by chance less than once in {odds}"),
            format!("{counts}; 우연이라면 {odds}"),
        )
    }

    /// Returns the word at the start of subjects: the severity, or that the incident is over.
    pub(crate) fn alarm(self, transition: &TransitionJson) -> &'static str {
        match (transition.transition, transition.level.as_str()) {
            (Change::Ended, _) => self.pick("ENDED", "종료"),
            (Change::Withdrawn, _) => self.pick("WITHDRAWN", "철회"),
            (_, "revoke") => self.pick("CRITICAL", "심각"),
            (_, "notice") => self.pick("NOTICE", "참고"),
            _ => self.pick("ALERT", "경보"),
        }
    }

    /// Words the severity of an incident. A row's level `revoke` says what may be done; people read how grave it is.
    pub(crate) fn severity(self, level: &str) -> String {
        match level {
            "revoke" => self.pick("critical", "심각").to_owned(),
            "alert" => self.pick("alert", "경보").to_owned(),
            "notice" => self.pick("notice", "참고").to_owned(),
            other => line(other, NAME),
        }
    }

    /// Words the state of a key.
    pub(crate) fn key_state(self, state: Option<&str>) -> String {
        match state {
            Some("active") => self.pick("active", "사용 중").to_owned(),
            Some("suspended") => self.pick("suspended", "정지됨").to_owned(),
            Some("revoked") => self.pick("revoked", "폐기됨").to_owned(),
            Some(other) => line(other, NAME),
            None => self.pick("not in the table of keys", "키 테이블에 없음").to_owned(),
        }
    }

    /// Words the policy of a key.
    pub(crate) fn policy(self, policy: Option<&str>) -> String {
        match policy {
            Some("observe") => self.pick("record only", "기록만").to_owned(),
            Some("alert") => self.pick("alert people", "알림").to_owned(),
            Some("suspend") => self.pick("suspend the key", "키 정지").to_owned(),
            Some("revoke") => self.pick("revoke the key", "키 폐기").to_owned(),
            Some(other) => line(other, NAME),
            None => self.pick("none", "없음").to_owned(),
        }
    }

    /// Words what an answer does, as an instruction.
    pub(crate) fn answer(self, verb: Verb) -> &'static str {
        match verb {
            Verb::Approve => self.pick("Carry out what is held", "보류된 조치 실행"),
            Verb::Dismiss => self.pick(
                "It is no leak: withdraw the incident, and let a suspended key in again",
                "유출이 아님: 사건을 철회하고 정지된 키를 복구",
            ),
            Verb::Mute => {
                self.pick("Tell nothing of this key for two hours", "두 시간 동안 이 키에 대해 알리지 않음")
            }
            Verb::Accept => {
                self.pick("These calls are the owner's from now on", "이 호출을 앞으로 정상으로 취급")
            }
            Verb::Reinstate => self.pick("Let the key in again", "키를 다시 허용"),
            Verb::Revoke => self.pick("Revoke the key for good", "키를 영구 폐기"),
            Verb::Pause => self.pick("Hold every action", "모든 조치 보류"),
            Verb::Resume => self.pick("End the pause", "보류 종료"),
        }
    }

    /// Words the reason for which an incident was withdrawn.
    pub(crate) fn reason(self, reason: &str) -> String {
        use keytide_dataflow::Reason;
        let known = [
            Reason::Allowed,
            Reason::Publishable,
            Reason::Active,
            Reason::Unreported,
            Reason::Dismissed,
            Reason::Accepted,
        ];
        match (self.0, known.into_iter().find(|known| known.name() == reason)) {
            (Language::Ko, Some(Reason::Allowed)) => "호출한 곳이 이 키의 허용 목록에 있습니다".to_owned(),
            (Language::Ko, Some(Reason::Publishable)) => "키 테이블에 공개용 키로 적혀 있습니다".to_owned(),
            (Language::Ko, Some(Reason::Active)) => "키 테이블에 사용 중인 키로 적혀 있습니다".to_owned(),
            (Language::Ko, Some(Reason::Unreported)) => "유출되었다는 신고가 철회되었습니다".to_owned(),
            (Language::Ko, Some(Reason::Dismissed)) => "담당자가 이 사건을 기각했습니다".to_owned(),
            (Language::Ko, Some(Reason::Accepted)) => {
                "담당자가 이 키의 동작을 정상으로 승인했습니다".to_owned()
            }
            _ => foreign(reason, REASON),
        }
    }

    /// Words the reason for which an action is held, failed or is void, by translating the clauses of `policy` and
    /// `actions` one by one. Unknown clauses stay as they are.
    pub(crate) fn held(self, reason: &str) -> String {
        let korean = |part: &str| {
            let mut numbers = part.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
            let mut number = || numbers.next().unwrap_or("?").to_owned();
            match part {
                "acting is off" => "조치 기능이 꺼져 있습니다".to_owned(),
                "acting is off, too" => "조치 기능도 꺼져 있습니다".to_owned(),
                "the job was catching up" => "밀린 기록을 처리하는 중이었습니다".to_owned(),
                "many keys rose together" => "여러 키의 호출이 함께 늘었습니다".to_owned(),
                "nobody decided about it within a day" => "하루 동안 아무도 결정하지 않았습니다".to_owned(),
                _ if part.starts_with("the key was acted on within the last ") => {
                    "얼마 전에 이미 조치한 키입니다".to_owned()
                }
                _ if part.starts_with("the breaker lets pass ") => {
                    format!("조치는 시간당 {}개까지입니다(사용 중인 키 {}개)", number(), number())
                }
                _ if part.starts_with("the breaker of the gateway ") => {
                    // The name may have digits as well.
                    let passed = part.rsplit_once(" lets pass ").map_or("", |(_, passed)| passed);
                    let limit = passed.split(' ').next().unwrap_or("?");
                    format!("이 게이트웨이의 조치는 시간당 {limit}개까지입니다")
                }
                _ if part.starts_with("the gateway ") && part.ends_with(" refused the job's credentials") => {
                    "게이트웨이가 이 작업의 인증 정보를 거부했습니다".to_owned()
                }
                _ if part.starts_with("the gateway ") && part.contains(" is on probation until ") => {
                    "담당자가 승인한 조치가 확인될 때까지 이 게이트웨이의 조치는 승인이 필요합니다".to_owned()
                }
                _ if part.starts_with("still answered: ") => {
                    let (answered, calls) = (number(), number());
                    format!("1분간 호출 {calls}회 중 {answered}회가 응답되었습니다")
                }
                _ => match (part.strip_suffix(" paused actions"), part.strip_prefix("the last ")) {
                    (Some(who), _) => format!("{who} 님이 모든 조치를 보류했습니다"),
                    (None, Some(_)) if part.ends_with(" failed") => {
                        format!("이 게이트웨이의 마지막 조치 {}건이 실패했습니다", number())
                    }
                    _ => match part.strip_suffix(" dismissed the incident before") {
                        Some(who) => format!("{who} 님이 이 사건을 기각한 적이 있습니다"),
                        None => part.to_owned(),
                    },
                },
            }
        };
        let reason = foreign(reason, REASON);
        match self.0 {
            Language::En => reason,
            Language::Ko => reason.split("; ").map(korean).collect::<Vec<_>>().join("; "),
        }
    }
}

/// Returns whether a signal's bits are -log2 of a probability under the key's own history, so that a chance can be
/// named.
///
/// Volumes are tails that are calibrated for the key. New values have the probability of the next call to show one.
/// `fan_out` and the errors are bounds of Chernoff's, `mix` is a bound on a chi-square tail. `slow` is a sum of log
/// likelihood ratios over hours (CUSUM): so high a sum comes more often by chance than 2^-bits. `travel` and
/// `shared_network` have a number of bits that was set, and so have the facts.
fn is_probability(signal: &str) -> bool {
    matches!(
        signal,
        "volume_1m"
            | "volume_5m"
            | "volume_1h"
            | "country"
            | "asn"
            | "network"
            | "fan_out"
            | "user_agent"
            | "route"
            | "mix"
            | "refused"
            | "throttled"
    )
}

/// Formats the expected number of a signal; `None` for new values, of which none were expected.
pub(super) fn expected(signal: &SignalJson) -> Option<String> {
    signal.expected.filter(|expected| *expected > 0.0).map(amount)
}

/// Formats a number as `48,120`.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Formats a number that needn't be whole as `0.4`, `9.5`, `120` or `4,812`.
pub(crate) fn amount(amount: f64) -> String {
    let amount = if amount.is_finite() { amount.clamp(0.0, 1e15) } else { return "?".to_owned() };
    if amount > 0.0 && amount < 0.05 {
        return "<0.1".to_owned();
    }
    let mut text = String::new();
    if amount < 9.95 {
        let _ = write!(text, "{amount:.1}");
        return text.strip_suffix(".0").unwrap_or(&text).to_owned();
    }
    #[expect(clippy::cast_sign_loss, reason = "clamped")]
    let whole = amount.round() as u64;
    number(whole)
}

/// Formats a share, from 0 to 1, as `99.8 %`.
fn percent(share: f64) -> String {
    let percent = if share.is_finite() { share.clamp(0.0, 1.0) * 100.0 } else { return "?".to_owned() };
    match percent {
        _ if percent > 0.0 && percent < 0.05 => "<0.1 %".to_owned(),
        // All is said of all only.
        _ if (99.95..100.0).contains(&percent) => ">99.9 %".to_owned(),
        _ => {
            let text = format!("{percent:.1}");
            format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
        }
    }
}

/// Formats a number of bytes as `1.8 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, shift)| bytes >= 1 << shift) {
        Some((unit, shift)) => format!("{} {unit}", amount(bytes as f64 / (1_u64 << shift) as f64)),
        None => format!("{bytes} B"),
    }
}

/// Formats a large number with its unit as `17 million`.
fn rounded(n: u64) -> String {
    let (by, unit) = match n {
        _ if n < 1_000 => return number(n),
        _ if n < 1_000_000 => return number(n / 100 * 100),
        _ if n < 1_000_000_000 => (1_000_000, "million"),
        _ => (1_000_000_000, "billion"),
    };
    format!("{} {unit}", number(n / by))
}

/// Formats a large number with its Korean unit as `1,678만`.
fn rounded_ko(n: u64) -> String {
    match n {
        _ if n < 10_000 => number(n),
        _ if n < 100_000_000 => format!("{}만", number(n / 10_000)),
        _ => format!("{}억", number(n / 100_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_rounded() {
        assert_eq!(number(0), "0");
        assert_eq!(number(1_234_567), "1,234,567");
        assert_eq!(number(u64::MAX), "18,446,744,073,709,551,615");
        let shown: Vec<String> =
            [0.0, 0.01, 0.25, 4.0, 9.96, 119.6, 4812.0, f64::NAN, f64::INFINITY, -3.0].map(amount).into();
        assert_eq!(shown, ["0", "<0.1", "0.2", "4", "10", "120", "4,812", "?", "?", "0"]);
    }

    #[test]
    fn shares_and_bytes_are_rounded() {
        let shares = [0.0, 0.000_4, 0.5, 0.998, 0.999_9, 1.0, 7.0, f64::NAN].map(percent);
        assert_eq!(shares, ["0 %", "<0.1 %", "50 %", "99.8 %", ">99.9 %", "100 %", "100 %", "?"]);
        let sizes = [0, 1_023, 1_024, 421_888, 6_227_702_579, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1 KiB", "412 KiB", "5.8 GiB", "16,777,216 TiB"]);
    }

    #[test]
    fn odds_are_written_in_words() {
        let signal = |family: &str, bits| SignalJson {
            signal: "volume_5m".to_owned(),
            family: family.to_owned(),
            window_start: String::new(),
            window_s: 300,
            first_at: String::new(),
            last_at: String::new(),
            expected: Some(1.5),
            seen: 60,
            ratio: Some(40.0),
            bits,
            weighted_bits: bits,
            values: Vec::new(),
        };
        let shown = |bits| Wording(Language::En).surprise(&signal("volume", bits));
        assert_eq!(shown(24.0), "counts 24.0 bits; by chance less than once in 16 million");
        assert_eq!(shown(10.0), "counts 10.0 bits; by chance less than once in 1,000");
        assert_eq!(shown(6.0), "counts 6.0 bits; by chance less than once in 64");
        assert_eq!(shown(64.2), "counts 64.2 bits; by chance less than once in a trillion");
        assert_eq!(shown(f64::INFINITY), "counts nothing");
        assert_eq!(
            Wording(Language::Ko).surprise(&signal("volume", 24.0)),
            "24.0비트로 반영; 우연이라면 1,677만 번에 한 번 미만"
        );
        assert_eq!(Wording(Language::En).surprise(&signal("hard", 40.0)), "a fact, not a measurement");
        assert_eq!(Wording(Language::En).measure(&signal("volume", 1.0)), "60 calls, 1.5 expected");
        assert_eq!(Wording(Language::Ko).measure(&signal("volume", 1.0)), "호출 60회, 평소 1.5");
        let named = |name: &str| {
            let name = name.to_owned();
            Wording(Language::En).measure(&SignalJson {
                signal: name,
                expected: Some(0.0),
                ..signal("origin", 1.0)
            })
        };
        assert_eq!(
            ["country", "travel", "reported", "fan_out"].map(named),
            ["60 calls", "60 km apart", "reported as leaked", "60 networks"]
        );
    }

    #[test]
    fn a_chance_is_named_of_probabilities_only() {
        for name in keytide_dataflow::detect::Signal::ALL {
            let signal = SignalJson {
                signal: name.name().to_owned(),
                family: name.family().name().to_owned(),
                ..crate::email::samples::leak().signals.swap_remove(0)
            };
            let set = matches!(name.name(), "slow" | "travel" | "shared_network") || signal.family == "hard";
            for words in Wording::ALL {
                let text = words.surprise(&signal);
                assert_eq!(text.contains(words.pick("chance", "우연")), !set, "{text}");
            }
        }
    }

    #[test]
    fn reasons_of_held_actions_are_in_korean() {
        let held = |reason| Wording(Language::Ko).held(reason);
        assert_eq!(
            held("many keys rose together; acting is off, too"),
            "여러 키의 호출이 함께 늘었습니다; 조치 기능도 꺼져 있습니다"
        );
        assert_eq!(
            held("the breaker lets pass 10 keys an hour, of 1200 in use"),
            "조치는 시간당 10개까지입니다(사용 중인 키 1200개)"
        );
        assert_eq!(
            held("still answered: 3 of 40 calls in a minute"),
            "1분간 호출 40회 중 3회가 응답되었습니다"
        );
        assert_eq!(held("alice paused actions"), "alice 님이 모든 조치를 보류했습니다");
        assert_eq!(held("bob dismissed the incident before"), "bob 님이 이 사건을 기각한 적이 있습니다");
        assert_eq!(
            held("the breaker of the gateway kong-1 lets pass 20 keys an hour, of 1200 in use"),
            "이 게이트웨이의 조치는 시간당 20개까지입니다"
        );
        assert_eq!(
            held("the gateway kong-1 refused the job's credentials"),
            "게이트웨이가 이 작업의 인증 정보를 거부했습니다"
        );
        assert_eq!(
            held("the gateway kong-1 is on probation until an action that a person approved is confirmed"),
            "담당자가 승인한 조치가 확인될 때까지 이 게이트웨이의 조치는 승인이 필요합니다"
        );
        let failing = "the last 3 actions of the gateway edge failed";
        assert_eq!(held(failing), "이 게이트웨이의 마지막 조치 3건이 실패했습니다");
        assert_eq!(held("nobody decided about it within a day"), "하루 동안 아무도 결정하지 않았습니다");
        assert_eq!(held("another reason"), "another reason");
        assert_eq!(Wording(Language::En).held("the job was catching up"), "the job was catching up");
    }

    #[test]
    fn every_signal_and_family_has_a_name_in_both_languages() {
        for signal in keytide_dataflow::detect::Signal::ALL {
            for words in Wording::ALL {
                assert_ne!(words.signal(signal.name()), signal.name());
            }
            let (name, family) = (signal.name(), signal.family().name());
            assert!(!Wording(Language::Ko).family(family).is_ascii(), "{family}");
            assert!(!Wording(Language::Ko).signal(name).is_ascii(), "{name}");
        }
    }

    #[test]
    fn countries_have_names_in_both_languages() {
        assert_eq!(COUNTRIES.lines().count(), 250);
        assert!(COUNTRIES.lines().all(|row| row.split('\t').filter(|cell| !cell.is_empty()).count() == 3));
        assert_eq!(Wording(Language::En).country("BR"), "Brazil (BR)");
        assert_eq!(Wording(Language::Ko).country("BR"), "브라질 (BR)");
        assert_eq!(Wording(Language::Ko).country("ZZ"), "알 수 없는 국가");
        assert_eq!(Wording(Language::En).country("<b"), "<b");
    }

    #[test]
    fn times_are_read_and_what_is_none_is_shown_as_it_is() {
        assert_eq!(Wording(Language::En).time("2026-11-21T14:05:00Z"), "2026-11-21 14:05 UTC");
        assert_eq!(Wording(Language::Ko).time("2026-11-21T14:05:00Z"), "2026년 11월 21일 14:05 (UTC)");
        assert_eq!(Wording(Language::En).time("soon\r\n"), "soon");
        assert_eq!(Wording(Language::En).window("2026-11-21T23:58:00Z", 300), "Nov 21, 23:58 to 00:03");
        assert_eq!(
            Wording(Language::En).time_in("2026-11-30T15:00:00Z", Some("asia/seoul")),
            "2026-12-01 00:00 Asia/Seoul"
        );
        for unknown in [None, Some("Mars/Olympus"), Some(""), Some("../../etc/passwd")] {
            let time = Wording(Language::En).time_in("2026-11-30T15:00:00Z", unknown);
            assert_eq!(time, "2026-11-30 15:00 UTC");
        }
        assert_eq!(
            Wording(Language::Ko).between("2026-11-21T14:05:00Z", "2026-11-21T15:31:59Z").as_deref(),
            Some("1시간 26분")
        );
    }
}
