//! A bill as one page of HTML: light, without scripts and other files, made to be printed on A4.
//!
//! Every text that isn't a word of ours passes through [`escaped`]: it can be no markup, and characters that act instead of
//! being shown, such as marks of direction, are shown as their numbers. The page's policy allows no script and no request.

use std::fmt::Write as _;

use keytide_alerts::email::acts;
use keytide_billing::{Currency, Measure};
use keytide_config::Language;

use super::bill::{
    Adjusted, BillDocument, BillState, Charged, Correction, PeriodQuota, ReportPeriod, TierCharged, UseByDay,
    Used,
};
use super::numbers::{NONE, counted, decimal, money, percent, quantity, unit_name, used_of, whole};
use super::svg::{Bar, bars};
use super::words::Words;

/// The most characters of a foreign text.
const SHOWN: usize = 500;

const STYLE: &str = include_str!("style.css");

/// Returns a foreign text as text of HTML, also within attributes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.chars().enumerate() {
        if at == SHOWN {
            out.push('…');
            break;
        }
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ if acts(c) => out.extend(c.escape_unicode()),
            _ => out.push(c),
        }
    }
    out
}

/// Writes a bill in a language.
pub(super) fn bill(bill: &BillDocument, language: Language) -> String {
    BillPage { bill, words: Words::of(language), out: String::with_capacity(1 << 14) }.write()
}

struct BillPage<'a> {
    bill: &'a BillDocument,
    words: &'static Words,
    out: String,
}

impl BillPage<'_> {
    fn write(mut self) -> String {
        self.head();
        self.facts();
        self.lines();
        self.corrections();
        self.quotas();
        self.by_day();
        self.how();
        self.put("</main></body></html>\n");
        self.out
    }

    fn put(&mut self, html: &str) {
        self.out.push_str(html);
    }

    fn heading(&mut self, words: &str) {
        self.put(&format!("<section><h2>{words}</h2>"));
    }

    /// Returns an amount with the bill's currency.
    fn money(&self, amount: &str) -> String {
        escaped(&money(amount, self.bill.currency.as_deref().unwrap_or_default()))
    }

    fn head(&mut self) {
        let (bill, words) = (self.bill, self.words);
        let (title, note) = match (bill.state, bill.complete) {
            (BillState::Draft, false) => (words.draft, words.is_draft),
            (BillState::Draft, true) => (words.draft, words.is_complete),
            (BillState::Final, _) => (words.bill, words.is_final),
            (BillState::Corrected, _) => (words.corrected, words.is_corrected),
        };
        let ReportPeriod { first_day, last_day, .. } = &bill.period;
        let customer = escaped(bill.customer.as_deref().unwrap_or(&bill.subscription));
        let days = words.from_to.replace("{from}", first_day).replace("{to}", last_day);
        let total = bill.total.as_deref().map_or_else(|| NONE.to_owned(), |total| self.money(total));
        let (code, state, total_word) = (words.code, bill.state.name(), words.total);
        self.put(&format!(
            "<!DOCTYPE html>\n<html lang=\"{code}\"><head><meta charset=\"utf-8\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
             <meta name=\"referrer\" content=\"no-referrer\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>{title}: {customer}, {days}</title><style>{STYLE}</style></head>\n\
             <body class=\"{state}\"><main><header><div><h1>{title}</h1><p class=\"customer\">{customer}</p>\
             <p class=\"days\">{days}</p></div>\
             <div class=\"due\"><span>{total_word}</span><strong>{total}</strong></div></header>\n\
             <p class=\"note\">{note}</p>\n"
        ));
        if let Some(fault) = &bill.fault {
            let fault = escaped(fault);
            self.put(&format!("<p class=\"note fault\"><b>{}</b>: {fault}</p>\n", words.fault));
        }
    }

    fn facts(&mut self) {
        let (bill, words) = (self.bill, self.words);
        let unknown = || words.unknown.to_owned();
        let plan = match (&bill.plan_name, &bill.plan) {
            (Some(name), Some(id)) if name != id => format!("{} ({})", escaped(name), escaped(id)),
            (_, Some(id)) => escaped(id),
            (_, None) => unknown(),
        };
        let ReportPeriod { start_local, end_local, time_zone, .. } = &bill.period;
        let span = words.from_to.replace("{from}", &clock(start_local)).replace("{to}", &clock(end_local));
        let customer = bill.customer.as_deref().map_or_else(unknown, escaped);
        let number = bill.number.map_or_else(|| NONE.to_owned(), |number| number.to_string());
        self.put("<dl class=\"facts\">");
        for (label, value) in [
            (words.customer, customer),
            (words.subscription, escaped(&bill.subscription)),
            (words.plan, plan),
            (words.number, number),
            (words.period, span),
            (words.time_zone, escaped(time_zone)),
        ] {
            self.put(&format!("<div><dt>{label}</dt><dd>{value}</dd></div>"));
        }
        self.put("</dl>\n");
    }

    /// Returns the name of a line for people.
    fn item(&self, item: &str) -> String {
        let words = self.words;
        match item {
            ":base_fee" => words.base_fee.to_owned(),
            ":minimum" => words.minimum.to_owned(),
            ":maximum" => words.maximum.to_owned(),
            // Views show an item that begins with a colon with one more.
            own => escaped(own.strip_prefix(':').unwrap_or(own)),
        }
    }

    fn lines(&mut self) {
        let (bill, words) = (self.bill, self.words);
        self.heading(words.lines);
        self.put("<table class=\"lines\"><thead><tr>");
        for (class, label) in [
            ("", words.item),
            ("number", words.quantity),
            ("number", words.unit_price),
            ("number", words.exact),
            ("number", words.amount),
        ] {
            self.put(&format!("<th class=\"{class}\" scope=\"col\">{label}</th>"));
        }
        self.put("</tr></thead><tbody>\n");
        if bill.lines.is_empty() {
            self.put(&format!("<tr><td colspan=\"5\">{}</td></tr>", words.no_lines));
        }
        for line in &bill.lines {
            self.line(line);
        }
        self.put("</tbody><tbody class=\"sums\">");
        if let Some(charges) = bill.charges.as_deref().filter(|_| bill.lines.len() > 1) {
            self.sum("sum", words.charges, charges);
        }
        let unlisted = bill.unlisted_adjustments();
        if !bill.adjustments.is_empty() || unlisted.is_some() {
            self.put(&format!(
                "<tr class=\"line\"><td colspan=\"4\">{}</td><td class=\"number\">{}</td></tr>",
                words.adjustments,
                bill.adjustments_total.as_deref().map_or_else(|| NONE.to_owned(), decimal)
            ));
            for adjustment in &bill.adjustments {
                self.adjustment(adjustment, true);
            }
            if let Some(amount) = unlisted {
                self.sum("tier", words.other_adjustments, &amount);
            }
        }
        let total = bill.total.as_deref().map_or_else(|| NONE.to_owned(), |total| self.money(total));
        self.put(&format!(
            "<tr class=\"total\"><td colspan=\"3\">{}</td><td class=\"number\" colspan=\"2\">{total}</td></tr>\
             </tbody></table><p class=\"small\">{}</p></section>\n",
            words.total, words.rounding
        ));
    }

    fn sum(&mut self, class: &str, label: &str, amount: &str) {
        self.put(&format!(
            "<tr class=\"{class}\"><td colspan=\"4\">{label}</td><td class=\"number\">{}</td></tr>",
            escaped(&decimal(amount))
        ));
    }

    fn adjustment(&mut self, line: &Adjusted, with_period: bool) {
        let item = self.item(&line.item);
        let label = match with_period {
            true => {
                self.words.adjustment_of.replace("{day}", &line.period_first_day).replace("{item}", &item)
            }
            false => item,
        };
        self.sum("tier", &label, &line.amount);
    }

    fn line(&mut self, line: &Charged) {
        let (bill, words) = (self.bill, self.words);
        let measure: Option<Measure> = line.metric.and_then(|metric| metric.parse().ok());
        let shown = |count: i128| escaped(&quantity(count, measure, line.unit, words));
        let price = |tier: &TierCharged| match tier.unit_price == "0" && tier.exact == "0" {
            true => words.free.to_owned(),
            false => {
                let price = money(&tier.unit_price, bill.currency.as_deref().unwrap_or_default());
                let form = match (line.model.as_deref(), measure, line.unit) {
                    (Some("package"), ..) => words.per_package.to_owned(),
                    (_, Some(measure), Some(unit)) => {
                        words.per.replace("{unit}", &unit_name(measure, unit, words))
                    }
                    _ => "{price}".to_owned(),
                };
                escaped(&form.replace("{price}", &price))
            }
        };
        let whole_quantity = line.quantity.map_or_else(|| NONE.to_owned(), |count| shown(count.into()));
        // One tier that is the whole line needs no row of its own.
        let only = line.tiers.first().filter(|_| line.tiers.len() == 1 && line.included.is_none());
        let unit_price = only.map(price).unwrap_or_default();
        let (name, exact, amount) =
            (self.item(&line.item), escaped(&decimal(&line.exact)), escaped(&decimal(&line.amount)));
        self.put(&format!(
            "<tr class=\"line\"><td>{name}</td><td class=\"number quantity\">{whole_quantity}</td>\
             <td class=\"number price\">{unit_price}</td><td class=\"number exact\">{exact}</td>\
             <td class=\"number\">{amount}</td></tr>\n"
        ));
        if only.is_some() {
            return;
        }
        if let Some(included) = line.included {
            let (label, count, free) = (words.included, shown(included.into()), words.free);
            self.put(&format!(
                "<tr class=\"tier\"><td>{label}</td><td class=\"number\">{count}</td><td class=\"number price\">{free}</td>\
                 <td class=\"number exact\">0</td><td></td></tr>\n"
            ));
        }
        let plans = line.tiers.iter().filter(|tier| tier.plan != line.tiers[0].plan).count();
        for tier in &line.tiers {
            let mut label = words.tier.replace("{}", &tier.tier.to_string());
            if plans > 0 {
                let _ = write!(label, " ({})", escaped(tier.plan.as_deref().unwrap_or(NONE)));
            }
            let (count, price, exact) = (shown(tier.quantity), price(tier), escaped(&decimal(&tier.exact)));
            self.put(&format!(
                "<tr class=\"tier\"><td>{label}</td><td class=\"number\">{count}</td><td class=\"number price\">{price}</td>\
                 <td class=\"number exact\">{exact}</td><td></td></tr>\n"
            ));
        }
    }

    fn corrections(&mut self) {
        let (bill, words) = (self.bill, self.words);
        if bill.corrections.is_empty() {
            return;
        }
        self.heading(words.corrections);
        self.put(&format!("<p class=\"small\">{}</p><table class=\"lines\"><tbody>", words.corrections_note));
        if let Some(charges) = &bill.charges {
            self.sum("sum", words.billed_so_far, charges);
        }
        for Correction { number, due_with_first_day, lines, amount, .. } in &bill.corrections {
            let due =
                words.due_with.replace("{number}", &number.to_string()).replace("{day}", due_with_first_day);
            self.sum("line", &due, amount.as_deref().unwrap_or(NONE));
            for line in lines {
                self.adjustment(line, false);
            }
        }
        if let Some(corrected) = &bill.corrected_charges {
            let corrected = self.money(corrected);
            self.put(&format!(
                "<tr class=\"total\"><td colspan=\"3\">{}</td><td class=\"number\" colspan=\"2\">{corrected}</td></tr>",
                words.corrected_charges
            ));
        }
        self.put("</tbody></table></section>\n");
    }

    fn quotas(&mut self) {
        let (bill, words) = (self.bill, self.words);
        if bill.quotas.is_empty() {
            return;
        }
        self.heading(words.quotas);
        self.put("<ul>");
        for PeriodQuota { metric, limit, used, hard } in &bill.quotas {
            let measure: Option<Measure> = metric.parse().ok();
            let shown = |count: u64| match measure {
                Some(Measure::Cost) => cost(count, bill.currency.as_deref()),
                Some(measure) => counted(count.into(), measure, words),
                None => whole(count),
            };
            let used_text = match measure {
                Some(Measure::Cost) => shown(*used),
                _ => whole(*used),
            };
            let standing = escaped(&used_of((*used, *limit), &used_text, shown, words));
            let hard = if *hard { format!(" ({})", words.quota_hard) } else { String::new() };
            self.put(&format!("<li>{standing}{hard}</li>"));
        }
        self.put("</ul></section>\n");
    }

    fn by_day(&mut self) {
        let (bill, words) = (self.bill, self.words);
        self.heading(words.by_day);
        let Some(UseByDay { time_zone, splits_hours, days }) = &bill.by_day else {
            self.put(&format!("<p>{}</p></section>\n", words.no_use));
            return;
        };
        let bar = |day: &super::bill::DayUse| Bar {
            label: day.date.get(8..).unwrap_or_default().trim_start_matches('0').to_owned(),
            value: day.used.map(|used| used.billed_calls),
        };
        let drawn: Vec<Bar> = days.iter().map(bar).collect();
        let chart = bars(words.by_day, &drawn);
        let has_units = days.iter().filter_map(|day| day.used).any(|used| used.units > 0);
        let mut columns = vec![
            words.day,
            words.billed_calls,
            words.free_calls,
            words.errors,
            words.bytes_in,
            words.bytes_out,
        ];
        columns.extend(has_units.then_some(words.units_column));
        self.put(&chart);
        self.put("<table class=\"days\"><thead><tr>");
        for (at, label) in columns.iter().enumerate() {
            let class = if at == 0 { "" } else { "number" };
            self.put(&format!("<th class=\"{class}\" scope=\"col\">{label}</th>"));
        }
        self.put("</tr></thead><tbody>\n");
        for run in days.chunk_by(|one, next| one.used.is_none() && next.used.is_none()) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let label = match run.len() {
                1 => first.date.clone(),
                _ => words.from_to.replace("{from}", &first.date).replace("{to}", &last.date),
            };
            self.day("", &label, first.used.as_ref(), columns.len());
        }
        if let Some(used) = &bill.counted.used {
            self.day("sum", words.sum, Some(used), columns.len());
        }
        let mut notes = vec![words.days_of.replace("{}", &escaped(time_zone))];
        notes.extend(splits_hours.then(|| words.split_hours.to_owned()));
        notes.extend(days.iter().any(|day| day.used.is_none()).then(|| words.no_data.to_owned()));
        self.put(&format!("</tbody></table><p class=\"small\">{}</p></section>\n", notes.join(" ")));
    }

    fn day(&mut self, class: &str, label: &str, used: Option<&Used>, columns: usize) {
        self.put(&format!("<tr class=\"{class}\"><td>{label}</td>"));
        let sums = used.map(|used| {
            let errors = used.errors_4xx + used.errors_5xx;
            [used.billed_calls, used.free_calls, errors, used.bytes_in, used.bytes_out, used.units]
        });
        for at in 0..columns.saturating_sub(1) {
            let sum = sums.and_then(|sums| sums.get(at).copied());
            let shown = sum.map_or_else(|| NONE.to_owned(), |sum| decimal(&sum.to_string()));
            self.put(&format!("<td class=\"number\">{shown}</td>"));
        }
        self.put("</tr>\n");
    }

    fn how(&mut self) {
        let (bill, words) = (self.bill, self.words);
        let state = match (bill.is_final, bill.complete) {
            (true, _) => words.closed,
            (false, true) => words.complete,
            (false, false) => words.open,
        };
        let late = match (bill.is_final, bill.counted.late_changes) {
            (false, _) => words.late_open.to_owned(),
            (true, 0) => words.late_none.to_owned(),
            (true, changes) => words.late_some.replace("{}", &whole(changes as u64)),
        };
        let mut facts = vec![(words.completeness, state.to_owned())];
        if let Some(used) = bill.counted.used {
            let all = |count: u128| decimal(&count.to_string());
            let part = |count: u128| format!("{} ({})", all(count), percent(count, used.calls));
            facts.push((words.all_calls, all(used.calls)));
            facts.push((words.of_them_billed, part(used.billed_calls)));
            facts.push((words.of_them_free, part(used.free_calls)));
        }
        if let Some(to) = &bill.counted.counted_to {
            facts.push((words.counted_to, clock(to)));
        }
        facts.push((words.late, late));
        facts.push((words.belongs, words.belongs_text.to_owned()));
        facts.push((words.not_billed, words.not_billed_text.to_owned()));
        self.heading(words.how);
        self.put("<dl class=\"how\">");
        for (label, value) in facts {
            self.put(&format!("<dt>{label}</dt><dd>{value}</dd>"));
        }
        let commands: Vec<String> = bill.counted.recount.iter().map(|command| escaped(command)).collect();
        self.put(&format!(
            "<dt>{}</dt><dd>{}<pre>{}</pre></dd></dl></section>\n",
            words.recount,
            words.recount_text,
            commands.join("\n")
        ));
    }
}

/// Formats a time of ours by RFC 3339 as `2025-10-01 00:00 UTC+09:00`.
fn clock(time: &str) -> String {
    let (Some(date), Some(clock), Some(offset)) = (time.get(..10), time.get(11..16), time.get(19..)) else {
        return time.to_owned();
    };
    let offset = if offset == "Z" || offset == "+00:00" { "" } else { offset };
    format!("{date} {clock} UTC{offset}")
}

/// Formats a quantity of cost with its currency.
fn cost(cost: u64, currency: Option<&str>) -> String {
    let code = currency.unwrap_or_default();
    money(&Currency::cost_text(code.parse().ok(), cost), code)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads escaped text as a browser shows it.
    fn shown(html: &str) -> String {
        let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
        entities.into_iter().fold(html.to_owned(), |text, (entity, c)| text.replace(entity, c))
    }

    #[test]
    fn costs_and_times_are_written_for_people() {
        assert_eq!(cost(50_000_000, Some("EUR")), "5,000.00 EUR");
        assert_eq!(cost(12_345, Some("EUR")), "1.2345 EUR");
        assert_eq!(cost(50_000, Some("KRW")), "5 KRW");
        assert_eq!(clock("2025-10-01T00:00:00+09:00"), "2025-10-01 00:00 UTC+09:00");
        assert_eq!(clock("2025-10-01T00:00:00Z"), "2025-10-01 00:00 UTC");
    }

    proptest! {
        #[test]
        fn any_text_stays_text(text in "\\PC{0,40}|[<>&\"'=a-z /]{0,40}|[\u{200b}-\u{2030}\0-\u{20}]{0,9}") {
            let html = escaped(&text);
            prop_assert!(!html.contains(['<', '>', '"', '\'']) && !html.chars().any(acts), "{}", html);
            let expected: String = text.chars().map(|c| if acts(c) { c.escape_unicode().to_string() } else { c.into() }).collect();
            prop_assert_eq!(shown(&html), expected);
        }
    }
}
