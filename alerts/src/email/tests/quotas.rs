//! Mails about quotas: they are as harmless as the others, say how much of which quota is used, and form one thread for each
//! quota and period.

use super::*;
use crate::quota::QuotaNoticeRow;

fn mail(row: &QuotaNoticeRow, language: Language) -> Mail {
    COMPOSER.quota(&QuotaLetter { row, language, to: &TO, date_ms: DATE_MS }).unwrap()
}

/// The text with one blank in place of each break.
fn flat(mail: &Mail) -> String {
    mail.text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A row in which every text is a stranger's. A field that is added doesn't compile until it is here. Texts that choose the
/// words stay, if `is_known`.
fn hostile(row: &QuotaNoticeRow, text: &str, is_known: bool) -> QuotaNoticeRow {
    let QuotaNoticeRow {
        subscription: _,
        seq,
        metric,
        period,
        period_start: _,
        percent,
        limit,
        used,
        remaining,
        permille,
        hard,
        resets_at: _,
        at: _,
        expected,
        low,
        high,
        runs_out_at: _,
        currency: _,
        customer: _,
        plan: _,
        time_zone,
    } = row.clone();
    let (all, some) = (|| text.to_owned(), || Some(text.to_owned()));
    QuotaNoticeRow {
        subscription: all(),
        seq,
        metric: if is_known { metric } else { all() },
        period: if is_known { period } else { all() },
        period_start: all(),
        percent,
        limit,
        used,
        remaining,
        permille,
        hard,
        resets_at: all(),
        at: all(),
        expected,
        low,
        high,
        runs_out_at: some(),
        currency: some(),
        customer: some(),
        plan: some(),
        time_zone: if is_known { time_zone } else { some() },
    }
}

fn are_harmless(text: &str) {
    for (row, is_known) in samples::quotas().iter().flat_map(|row| [(row, true), (row, false)]) {
        let row = hostile(row, text, is_known);
        for language in LANGUAGES {
            is_harmless(&mail(&row, language));
            is_harmless(&COMPOSER.quotas(&[&row, &row], 3, language, &TO, DATE_MS).unwrap());
        }
    }
}

#[test]
fn mails_about_quotas_are_harmless_whatever_customers_named_their_subscriptions() {
    let long = "A".repeat(100_000);
    for payload in [
        "x\r\nBcc: victim@example.net\r\n\r\n<html>",
        "x\nSubject: other",
        "<script>alert(1)</script><img src=x onerror=alert(1)>",
        "\" onmouseover=\"alert(1)",
        "'><a href='https://evil.example/'>click</a>",
        "{{ 7 * 7 }}{% include \"layout.html\" %}",
        "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m",
        "abc\u{202e}gpj.exe\u{2066}\u{200b}\u{feff}",
        "=HYPERLINK(\"https://evil.example\")",
        "=?utf-8?q?=0d=0aBcc:_x?=",
        "한글과 \u{1f525} and Ünïcödé\u{301}\u{301}\u{301}\u{301}\u{301}",
        "\0",
        "",
        long.as_str(),
    ] {
        are_harmless(payload);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_row_makes_a_harmless_mail(
        text in any::<String>(),
        counts in any::<[u64; 9]>(),
        percent in any::<u16>(),
        is_known in any::<bool>(),
        has_currency in any::<bool>(),
        which in 0..samples::QUOTA_NAMES.len(),
        language in 0_usize..2,
    ) {
        let mut row = hostile(&samples::quotas()[which], &text, is_known);
        let [seq, limit, used, remaining, permille, expected, low, high, date_ms] = counts;
        (row.seq, row.percent, row.limit, row.used, row.remaining) = (seq, percent, limit, used, remaining);
        (row.permille, row.expected, row.low, row.high) = (permille, Some(expected), Some(low), Some(high));
        row.currency = row.currency.filter(|_| has_currency);
        let language = LANGUAGES[language];
        is_harmless(&mail(&row, language));
        is_harmless(&COMPOSER.quotas(&[&row], permille, language, &TO, date_ms).unwrap());
    }
}

#[test]
fn the_mails_of_one_quota_and_period_are_one_thread() {
    let [first, used_up, other, ..] = &*samples::quotas() else { panic!("samples") };
    let of = |row| {
        let mail = mail(row, Language::En);
        let header = |name| mail.message.headers().get_raw(name).map(str::to_owned).unwrap();
        assert_eq!(header("In-Reply-To"), header("References"));
        assert_eq!(header("X-Keytide-Change"), "quota");
        (mail.message_id.clone(), header("References"))
    };
    let [first, used_up, other] = [first, used_up, other].map(of);
    assert_ne!(first.0, used_up.0);
    assert_eq!(first.1, used_up.1);
    assert_ne!(first.1, other.1);
    let row = samples::quotas().swap_remove(0);
    let [one, two] = [(); 2].map(|()| mail(&row, Language::Ko).message.formatted());
    assert_eq!(one, two);
}

#[test]
fn subjects_say_which_quota_of_which_subscription_reached_which_percentage() {
    let subjects = |language| -> Vec<String> {
        samples::quotas().iter().map(|row| mail(row, language).subject).collect()
    };
    assert_eq!(
        subjects(Language::En),
        [
            "[Keytide] Subscription sub-1042: 80 % of the monthly quota of calls used",
            "[Keytide] Subscription sub-1042: the monthly quota of calls is used up (100 %)",
            "[Keytide] Subscription sub-1042: 90 % of the billing period's quota of response bytes used",
            "[Keytide] Subscription 가나다물류 운영: the monthly spending limit is used up (150.5 %)",
            "[Keytide] Subscription sub-2077: 80 % of the daily quota of units used",
        ]
    );
    assert_eq!(
        subjects(Language::Ko),
        [
            "[Keytide] 구독 sub-1042: 월간 호출 한도의 80 % 사용",
            "[Keytide] 구독 sub-1042: 월간 호출 한도를 모두 사용함(100 %)",
            "[Keytide] 구독 sub-1042: 청구 기간 응답 바이트 한도의 90 % 사용",
            "[Keytide] 구독 가나다물류 운영: 월간 비용 한도를 모두 사용함(150.5 %)",
            "[Keytide] 구독 sub-2077: 일간 사용 단위 한도의 80 % 사용",
        ]
    );
}

#[test]
fn a_mail_says_what_comes_once_a_quota_is_used_up() {
    let row = samples::quotas().swap_remove(0);
    for (remaining, hard, expected) in [
        (1, true, "Once it is used up, further calls are refused until it resets."),
        (1, false, "Once it is used up, further calls are still answered, and billed as your plan says."),
        (0, true, "Until then, further calls are refused."),
        (0, false, "Further calls are still answered, and billed as your plan says."),
    ] {
        let text = flat(&mail(&QuotaNoticeRow { remaining, hard, ..row.clone() }, Language::En));
        assert!(text.contains(expected), "{text}");
    }
    let lasts = "If your use goes on like this, it lasts until it resets.";
    let runs_out = "If your use goes on like this, it is used up on 2026-11-25 18:30 Asia/Seoul.";
    let unknown = QuotaNoticeRow { expected: None, runs_out_at: None, ..row.clone() };
    for (row, expected) in [
        (&row, [true, false]),
        (&QuotaNoticeRow { runs_out_at: None, ..row.clone() }, [false, true]),
        (&unknown, [false, false]),
        (&QuotaNoticeRow { remaining: 0, ..row.clone() }, [false, false]),
    ] {
        let text = flat(&mail(row, Language::En));
        assert_eq!([runs_out, lasts].map(|sentence| text.contains(sentence)), expected, "{text}");
    }
}

#[test]
fn quantities_are_written_in_the_units_of_their_metric() {
    let used = |metric: &str, currency: Option<&str>, used| {
        let (metric, currency) = (metric.to_owned(), currency.map(str::to_owned));
        let row = QuotaNoticeRow { metric, currency, used, ..samples::quotas().swap_remove(0) };
        LANGUAGES.map(|language| {
            let text = mail(&row, language).text;
            let label =
                ["Used  ", "사용량  "].into_iter().find_map(|label| text.split(label).nth(1)).unwrap();
            label.split(", 81.2 %").next().unwrap().trim().to_owned()
        })
    };
    assert_eq!(used("calls", None, 1), ["1 call", "호출 1회"]);
    assert_eq!(used("calls", None, 1_234_567), ["1,234,567 calls", "호출 1,234,567회"]);
    assert_eq!(used("bytes", None, 1_023), ["1,023 bytes", "1,023바이트"]);
    assert_eq!(used("bytes_in", None, 2_048), ["2,048 bytes (2 KiB)", "2,048바이트(2 KiB)"]);
    assert_eq!(used("units", None, 1_000), ["1,000 units", "1,000단위"]);
    for (currency, cost, expected) in [
        (Some("EUR"), 499_000, "49.90 EUR"),
        (Some("EUR"), 12_345_678, "1,234.5678 EUR"),
        (Some("KRW"), 15_600_000, "1,560 KRW"),
        (Some("KRW"), 15_600_500, "1,560.05 KRW"),
        (Some("BHD"), 10_010, "1.001 BHD"),
        (Some("EUR"), 0, "0.00 EUR"),
        (Some("nothing"), 10_000, "1.00 nothing"),
        (None, 5, "0.0005"),
    ] {
        assert_eq!(used("cost", currency, cost), [expected; 2]);
    }
    assert_eq!(used("cost", Some("EUR"), u64::MAX)[0], "1,844,674,407,370,955.1615 EUR");
}

#[test]
fn a_digest_lists_each_quota_once_by_its_newest_notice() {
    let rows = samples::quotas();
    let rows: Vec<&QuotaNoticeRow> = rows.iter().collect();
    let digest = |rows: &[&QuotaNoticeRow], more| COMPOSER.quotas(rows, more, Language::En, &TO, DATE_MS);
    let mail = digest(&rows, 0).unwrap();
    assert_eq!(mail.subject, "[Keytide] Notice of 4 quotas of your subscriptions, 2 of them used up");
    let text = flat(&mail);
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
    let calls = at("* Subscription sub-1042: the monthly quota of calls is used up (100 %)");
    assert!(
        at("* Subscription 가나다물류 운영: ") < calls && calls < at("90 % of the billing period's quota")
    );
    assert!(!text.contains("80 % of the monthly quota"), "{text}");
    let reversed: Vec<&QuotaNoticeRow> = rows.iter().rev().copied().collect();
    assert_eq!(digest(&reversed, 0).unwrap().message.formatted(), mail.message.formatted());
    assert_ne!(digest(&rows[1..], 0).unwrap().message_id, mail.message_id);
    assert!(matches!(digest(&[], 1), Err(ComposeError::Empty)));

    let many: Vec<QuotaNoticeRow> = (0..60)
        .map(|number| QuotaNoticeRow { subscription: format!("sub-{number}"), ..rows[0].clone() })
        .collect();
    let mail = digest(&many.iter().collect::<Vec<_>>(), 7).unwrap();
    assert_eq!(mail.text.matches("* Subscription sub-").count(), 50);
    assert!(mail.text.contains("And 17 more that aren't listed here."), "{}", mail.text);
    assert_eq!(mail.subject, "[Keytide] Notice of 67 quotas of your subscriptions");
}
