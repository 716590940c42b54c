//! The rules and dashboards of `deploy/` watch what a job serves: all of it, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::tests::known;
use super::{ExpositionFormat, text};

/// The rules for Prometheus: groups of lists of rules, in plain YAML.
const ALERTS: &str = include_str!("../../../../deploy/alerts.yml");

/// Dashboards for Grafana, each with its file's name.
const DASHBOARDS: [(&str, &str); 3] = [
    ("job.json", include_str!("../../../../deploy/grafana/job.json")),
    ("gateway.json", include_str!("../../../../deploy/grafana/gateway.json")),
    ("api.json", include_str!("../../../../deploy/grafana/api.json")),
];

/// Words of PromQL that rules and dashboards use, and the label that Prometheus adds to what it scrapes.
const WORDS: [&str; 21] = [
    "absent",
    "and",
    "by",
    "delta",
    "deriv",
    "group_left",
    "histogram_quantile",
    "increase",
    "instance",
    "label_values",
    "max",
    "min",
    "min_over_time",
    "offset",
    "on",
    "predict_linear",
    "rate",
    "resets",
    "sum",
    "time",
    "topk",
];

/// Returns the labels of each metric that is served, by the name of its values.
fn served() -> BTreeMap<String, BTreeSet<String>> {
    let page = text(known(), ExpositionFormat::OpenMetrics).unwrap();
    let mut served: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.split(['{', ',']).filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()));
        served.entry(name.to_owned()).or_default().extend(labels);
    }
    served
}

/// Returns the dashboards as JSON, each with its file's name.
fn dashboards() -> Vec<(&'static str, Value)> {
    DASHBOARDS.iter().map(|(name, content)| (*name, serde_json::from_str(content).unwrap())).collect()
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn string<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// A question to Prometheus: where it stands, its expression, and the text with labels that shows its answers.
struct Question {
    place: String,
    expression: String,
    legend: String,
}

/// Returns the questions of all rules and dashboards.
fn questions() -> Vec<Question> {
    let rules = ALERTS.split("\n      - alert: ").skip(1).map(|rule| {
        let line = |name: &str| rule.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap();
        Question {
            place: rule.lines().next().unwrap().to_owned(),
            expression: line("expr: ").to_owned(),
            // `$value` is no label, and labels stand as {{ $labels.name }} there.
            legend: format!("{}{}", line("summary: "), line("description: "))
                .replace("$value", "")
                .replace("$labels.", ""),
        }
    });
    let mut questions: Vec<Question> = rules.collect();
    for (name, dashboard) in dashboards() {
        for panel in list(&dashboard, "panels") {
            questions.extend(list(panel, "targets").iter().map(|target| Question {
                place: format!("{name}: {}", string(panel, "title")),
                expression: string(target, "expr").to_owned(),
                legend: string(target, "legendFormat").to_owned(),
            }));
        }
        let annotations = list(&dashboard["annotations"], "list").iter().map(|annotation| Question {
            place: format!("{name}: {}", string(annotation, "name")),
            expression: string(annotation, "expr").to_owned(),
            legend: string(annotation, "textFormat").to_owned(),
        });
        questions.extend(annotations);
        let variables = list(&dashboard["templating"], "list").iter();
        let variables = variables.filter(|variable| variable["type"] == "query").map(|variable| Question {
            place: format!("{name}: {}", string(variable, "name")),
            expression: string(&variable["query"], "query").to_owned(),
            legend: String::new(),
        });
        questions.extend(variables);
    }
    questions
}

/// Returns the words of an expression outside of quotes and of ranges in brackets.
fn words(expression: &str) -> Vec<&str> {
    let unquoted = expression.split('"').step_by(2);
    let outside = unquoted.flat_map(|part| part.split('[').flat_map(|part| part.rsplit(']').take(1)));
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = outside.flat_map(move |part| part.split(move |c: char| !is_word(c)));
    words.filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic())).collect()
}

/// Returns the names between double braces.
fn labels(legend: &str) -> impl Iterator<Item = &str> {
    let inside = legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}"));
    inside.map(|(name, _)| name.split('|').next().unwrap_or_default().trim()).filter(|name| !name.is_empty())
}

#[test]
fn rules_and_dashboards_ask_for_what_is_served() {
    let served = served();
    let questions = questions();
    assert!(questions.len() > 80, "{}", questions.len());
    for Question { place, expression, legend } in &questions {
        let words = words(expression);
        let (metrics, others): (Vec<&str>, Vec<&str>) =
            words.into_iter().partition(|word| word.starts_with("keytide_"));
        assert!(!metrics.is_empty(), "{place} asks for no metric: {expression}");
        let mut known: BTreeSet<&str> = ["instance"].into();
        for metric in metrics {
            let labels = served.get(metric).unwrap_or_else(|| panic!("{place}: {metric} isn't served"));
            known.extend(labels.iter().map(String::as_str));
        }
        for word in others {
            assert!(
                known.contains(word) || WORDS.contains(&word),
                "{place}: {word} is no label of its metrics: {expression}"
            );
        }
        for label in labels(legend) {
            assert!(known.contains(label), "{place}: {label} is no label of its metrics: {legend}");
        }
    }
    // Texts name metrics as well.
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for content in DASHBOARDS.iter().map(|(_, content)| *content).chain([ALERTS]) {
        let named = content.split(|c: char| !is_name(c)).filter(|word| word.starts_with("keytide_"));
        for name in named {
            assert!(served.contains_key(name), "{name} isn't served");
        }
    }
}

#[test]
fn what_is_served_has_a_place_in_a_rule_or_a_dashboard() {
    let questions = questions();
    let asked: BTreeSet<&str> = questions.iter().flat_map(|question| words(&question.expression)).collect();
    let unseen: Vec<String> = served().into_keys().filter(|name| !asked.contains(name.as_str())).collect();
    assert!(unseen.is_empty(), "in no rule and no dashboard: {unseen:?}");
}

#[test]
fn counters_are_asked_for_their_growth_and_gauges_are_not() {
    for Question { place, expression, .. } in questions() {
        for (at, _) in expression.match_indices("keytide_") {
            let name = words(&expression[at..])[0];
            let before = expression[..at].trim_end_matches('(');
            let is_growth = ["rate", "increase", "resets"].iter().any(|function| before.ends_with(function));
            let grows = ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end));
            assert_eq!(is_growth, grows, "{place}: {name} in {expression}");
        }
    }
}

#[test]
fn panels_have_titles_explanations_units_and_legends() {
    for (name, dashboard) in dashboards() {
        assert!(string(&dashboard, "uid").starts_with("keytide-"), "{name}");
        let panels = list(&dashboard, "panels");
        let (mut ids, mut titles, mut rows) = (BTreeSet::new(), BTreeSet::new(), 0);
        let mut cells = BTreeSet::new();
        for panel in panels {
            let title = string(panel, "title");
            assert!(!title.is_empty() && titles.insert(title), "{name}: the title {title:?}");
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {title}: the id");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            assert!(x + w <= 24 && w > 0 && h > 0, "{name}: {title} is outside");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(cells.insert(cell), "{name}: {title} lies over another panel");
            }
            if panel["type"] == "row" {
                rows += 1;
                continue;
            }
            assert!(rows > 0, "{name}: {title} belongs to no row");
            let description = string(panel, "description");
            assert!(description.ends_with('.'), "{name}: {title} is not explained");
            assert!(
                !string(&panel["fieldConfig"]["defaults"], "unit").is_empty(),
                "{name}: {title}: the unit"
            );
            let targets = list(panel, "targets");
            assert!(!targets.is_empty(), "{name}: {title} asks nothing");
            let legends: BTreeSet<&str> =
                targets.iter().map(|target| string(target, "legendFormat")).collect();
            assert!(!legends.contains(""), "{name}: {title}: a legend");
            // Two answers with one name can't be told apart, unless a label tells them apart.
            assert!(
                legends.len() == targets.len() || legends.iter().all(|legend| legend.contains("{{")),
                "{name}: {title}: {legends:?}"
            );
            for at in targets.iter().chain([panel]) {
                assert_eq!(at["datasource"]["uid"], "${datasource}", "{name}: {title}");
            }
        }
        assert!(rows >= if name == "job.json" { 10 } else { 2 }, "{name}: {rows} rows");
    }
}

#[test]
fn panels_and_rules_that_texts_name_exist() {
    let rules: BTreeSet<&str> =
        ALERTS.split("\n      - alert: ").skip(1).filter_map(|rule| rule.lines().next()).collect();
    let mut seen = 0;
    for (_, content) in DASHBOARDS {
        let words = content.split(|c: char| !c.is_ascii_alphanumeric());
        for word in words.filter(|word| word.len() > "Keytide".len() && word.starts_with("Keytide")) {
            assert!(rules.contains(word), "{word} is no rule of alerts.yml");
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen}");
}

#[test]
fn alerts_are_whole_and_say_what_to_do() {
    let rules: Vec<&str> = ALERTS.split("\n      - alert: ").skip(1).collect();
    let mut names = BTreeSet::new();
    for rule in &rules {
        let name = rule.lines().next().unwrap();
        assert!(name.starts_with("Keytide") && names.insert(name), "{name}");
        for part in
            ["expr: ", "for: ", "labels:", "  severity: ", "annotations:", "  summary: ", "  description: "]
        {
            let lines = rule.lines().filter(|line| line.starts_with(&format!("        {part}"))).count();
            assert_eq!(lines, 1, "{name}: {part}");
        }
        let severity = rule.split("severity: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
        assert!(["page", "ticket"].contains(&severity), "{name}: {severity}");
        for (open, close) in [('(', ')'), ('{', '}'), ('[', ']')] {
            assert_eq!(rule.matches(open).count(), rule.matches(close).count(), "{name}: {open}{close}");
        }
        assert_eq!(rule.matches('"').count() % 2, 0, "{name}: quotes");
    }
    assert_eq!(ALERTS.matches("alert:").count(), rules.len());
    assert!(rules.len() >= 10);
    assert!(ALERTS.lines().all(|line| !line.contains('\t') && line.trim_end() == line));
}
