//! The section `[routes]`: the templates and the origin of routes.

use std::collections::HashMap;

use super::prelude::*;

/// Bytes of a route template, at most.
const MAX_TEMPLATE_BYTES: usize = 512;

section! {
    /// The section `[routes]` of a configuration.
    #[derive(Clone, Debug)]
    pub struct Routes, RawRoutes then shadowed {
        /// Templates such as `/orders/{id}`, tried in order before the built-in rule.
        results templates: Vec<String> = templates(List<Template>, AtMost(10_000, "templates")) or Vec::new();
        key from(RoutesFrom);
    }
}

choice! {
    /// The origin of a source's routes.
    #[derive(Default)]
    pub enum RoutesFrom {
        /// The route that the gateway names, or the path if it names none.
        #[default]
        Gateway = "gateway",
        /// The path. The route that the gateway names becomes the API.
        Path = "path",
    }
}

texts! {
    /// A template such as `/orders/{id}`.
    Template if is_template, format!(
        "a path of at most {MAX_TEMPLATE_BYTES} bytes whose segments are literal or a whole {{name}}, such as \
         \"/orders/{{id}}\""
    );
}

impl RawRoutes {
    fn shadowed(spot: &Spot<Self>, _: &mut Routes, check: &mut Check<'_>) {
        let mut shapes = HashMap::new();
        for template in spot.value.templates.value().map_or(&[][..], |list| &list.items) {
            if let Some(first) = shapes.insert(template.value.shape(), &template.shown) {
                let message = format!(
                    "{} never matches: {first} stands before it and matches the same paths",
                    template.shown
                );
                check.warn(template, message);
            }
        }
    }
}

impl Template {
    /// Returns the template without the names of placeholders. Templates of equal shape match the same paths.
    fn shape(&self) -> String {
        let shape =
            |segment: &str| if segment.starts_with('{') { "{}".to_owned() } else { segment.to_owned() };
        self.0.split('/').map(shape).collect::<Vec<_>>().join("/")
    }
}

fn is_template(text: &str) -> bool {
    let Some(path) = text.strip_prefix('/') else { return false };
    let mut segments = path.split('/');
    // Only the last segment may be empty: `/` and a trailing slash.
    let last = segments.next_back().unwrap_or_default();
    text.len() <= MAX_TEMPLATE_BYTES
        && segments.all(|segment| !segment.is_empty() && is_segment(segment))
        && is_segment(last)
}

fn is_segment(segment: &str) -> bool {
    match segment.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}').is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        }),
        None => !segment.contains(|c: char| c.is_control() || c.is_whitespace() || "{}?#".contains(c)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    #[test]
    fn templates_have_whole_placeholders() {
        for (text, allowed) in [
            ("/", true),
            ("/orders/{id}", true),
            ("/orders/{id}/", true),
            ("/v1.0/a%20b/{order-id}/{x_1}", true),
            ("", false),
            ("orders", false),
            ("/orders/{id", false),
            ("/orders/id}", false),
            ("/orders/{}", false),
            ("/orders/{a}{b}", false),
            ("/orders/{id}.json", false),
            ("/orders//x", false),
            ("/orders?x=1", false),
            ("/a b", false),
            ("/\u{7}", false),
        ] {
            assert_eq!(is_template(text), allowed, "{text}");
        }
        assert!(is_template(&format!("/{}", "a".repeat(MAX_TEMPLATE_BYTES - 1))));
        assert!(!is_template(&format!("/{}", "a".repeat(MAX_TEMPLATE_BYTES))));
        assert_eq!(Template("/a/{x}/{y}".to_owned()).shape(), Template("/a/{y}/{x}".to_owned()).shape());
    }

    #[test]
    fn wrong_values_are_reported_with_their_location() {
        let with = |lines: &str| format!("{SMALL}{lines}");
        for (text, expected) in [
            (
                with("[routes]\nfrom = \"gatway\""),
                "line 7: routes.from: found \"gatway\", allowed: gateway, path; did you mean \"gateway\"?",
            ),
            (
                with("[routes]\ntemplates = [\"/a\", \"b\"]"),
                "line 7: routes.templates[1]: found \"b\", allowed: a path of at most 512 bytes whose segments are literal or a whole {name}, such as \"/orders/{id}\"",
            ),
        ] {
            assert_eq!(problems(&text), expected, "{text}");
        }
    }

    #[test]
    fn suspicious_values_are_warnings() {
        assert_eq!(
            warnings(&format!("{SMALL}[routes]\ntemplates = [\"/a/{{x}}\", \"/a/{{y}}\"]")),
            "line 7: routes.templates[1]: \"/a/{y}\" never matches: \"/a/{x}\" stands before it and matches the same paths"
        );
    }
}
